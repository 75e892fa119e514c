"""No model: why an engine could not load this source."""

from __future__ import annotations


class NoModel(ValueError):
    """The source is no model that an engine can load; the message says why, and what mends it."""
