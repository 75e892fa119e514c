"""Trouble: why a worker's engine does not start."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineTrouble:
    """Starts in a row that ended before the engine was ready."""

    failed_starts: int
    """How many."""
    why: str
    """What ended the last one, on one line: the engine's own words where it had some. It has not seen a request yet."""
    final: bool = False
    """Another start would end alike: the model or an argument is wrong."""
