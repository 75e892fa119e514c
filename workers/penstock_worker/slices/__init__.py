"""Batch work in a worker: a claim becomes lines, lines become answers, answers are recorded."""
