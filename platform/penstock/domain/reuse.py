"""Reuse: when an answer may stand for more than one request: within a batch, and from the shared cache."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CacheMode(StrEnum):
    """on: looked up and stored · off: neither · refresh: asked anew, and stored."""

    ON = "on"
    OFF = "off"
    REFRESH = "refresh"


class ReuseSource(StrEnum):
    """Where an answer was already."""

    EQUAL = "equal"
    """An equal line of the slice got it."""
    SHARED = "shared"
    """It was in the shared cache."""


@dataclass(frozen=True)
class Reuse:
    """What the lines of a batch may reuse."""

    dedup: bool = True
    """Equal lines that have one answer are asked once."""
    cache: CacheMode = CacheMode.OFF
    ttl_seconds: int | None = None
    """How long answers are kept; None: the platform's default."""
