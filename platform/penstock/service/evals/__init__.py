"""Evaluation: evals, their runs, and comparisons of two runs."""
