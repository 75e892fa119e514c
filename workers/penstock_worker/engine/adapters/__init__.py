"""Adapters in an engine: how they come into it, and which are there."""
