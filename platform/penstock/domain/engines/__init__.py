"""Engines: what each kind of them is, as data."""
