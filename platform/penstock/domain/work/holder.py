"""Holders: the processes that work is leased to."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True)
class Holder:
    """A process that can hold leases: a new id at each start, never a host name."""

    id: UUID
    kind: str
    model: str | None
    host: str
    pid: int
    pool: str | None = None
    """Of a pool host: whose."""
