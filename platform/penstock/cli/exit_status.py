"""Exit statuses of commands, beside 0, 1 (it could not be done) and 2 (no such flag); docs/cli.md has the table."""

from __future__ import annotations

from typing import Final

FAILED_LINES: Final = 3
"""It was done, and some lines, rows or jobs failed."""
INTERRUPTED: Final = 130
"""Ctrl-C, as shells say it: 128 and SIGINT."""
