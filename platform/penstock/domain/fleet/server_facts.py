"""Server facts: what Postgres says of itself, for whoever looks whether a platform could run on it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerFacts:
    """A Postgres at one moment."""

    clock_seconds: float
    """Since 1970, by its clock."""
    version: str
    connections: int
    """That ordinary roles may open in all."""
    open_connections: int
    """Without the one that asks."""
