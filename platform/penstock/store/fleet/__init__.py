"""Rows of workers and models."""
