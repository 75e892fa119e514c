"""Formats: the lines of files; one module reads and writes each (docs/formats.md)."""
