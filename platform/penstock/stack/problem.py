"""Problem: why the platform can't start, in one line that a person can act on."""

from __future__ import annotations


class Problem(Exception):
    """The platform can't start or go on; the message says what and how to mend it."""
