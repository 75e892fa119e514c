"""Waiting calls: from the API to a worker, and what became of them."""
