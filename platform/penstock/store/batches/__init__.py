"""Rows of batches and files, and how callers see them."""
