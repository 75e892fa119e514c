"""A batch's timeline: its moves, its first answer, what was done to it, its retries and its webhooks, oldest first."""

from __future__ import annotations

from typing import Final

from penstock.domain.api_errors import NotFound
from penstock.service.core.transaction import Transaction
from penstock.store.batches import timelines
from penstock.store.batches.timelines import TimelineEntry

MOST_EACH: Final = 100
"""Entries of every sort."""


def timeline(tx: Transaction, tenant: str, kind: str, id: str) -> list[TimelineEntry]:
    """What happened to a batch or job, the first `MOST_EACH` of every sort; raise NotFound."""
    found = timelines.of(tx.conn, tenant, kind=kind, id=id, each=MOST_EACH)
    if not found:
        raise NotFound(kind, id, param=f"{kind}_id")
    return found
