"""Rows of versions and aliases."""
