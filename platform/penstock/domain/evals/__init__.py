"""Evaluation: scorers, runs over a batch's answers, and comparisons of two runs."""
