"""Penstock: a queue-based batch inference platform for LLMs; this package is everything but the worker."""

__version__ = "0.1.0"
