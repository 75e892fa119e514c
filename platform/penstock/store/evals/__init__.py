"""Evals, their runs and comparisons: rows, and who works on them."""
