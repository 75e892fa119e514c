"""Erasures: a tenant goes with all that is its own; what stays says that it happened and how much it was, not whose."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from penstock.domain.accounts.audit import Actor


@dataclass(frozen=True)
class Erasure:
    """One tenant's."""

    id: str
    tenant: str | None
    """None once it is done."""
    actor: Actor
    """Who asked for it."""
    asked_at: datetime
    ended_at: datetime | None
    gone: dict[str, int]
    """What is removed by now: rows by kind, and `bytes` of files."""
