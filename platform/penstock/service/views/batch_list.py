"""Batch lists: a tenant's batches or jobs by what is asked of them, each with its outlook; and how many there are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from penstock.domain.work.batch_filter import BatchFilter
from penstock.service.core import cursor
from penstock.service.core.transaction import Transaction
from penstock.service.estimates import outlook
from penstock.service.views.batch_view import BatchView
from penstock.settings import Settings
from penstock.store.batches import batch_lists, batches
from penstock.store.batches.batch_lists import BatchTotal
from penstock.store.batches.outlooks import BatchesSeen
from penstock.store.cursors import Listed

ALL: Final = BatchFilter()
TOTALS_DAYS: Final = 30
MOST_COUNTED: Final = 10_000
"""Ended ones of each state that totals count."""


@dataclass(frozen=True)
class BatchTotals:
    """How many batches or jobs a tenant has: open ones all, ended ones the newest of each state since a time."""

    totals: list[BatchTotal]
    ended_since: datetime
    """Ended ones are counted that were created at this time or later."""


def page(
    tx: Transaction,
    tenant: str,
    kind: str,
    settings: Settings,
    *,
    chosen: BatchFilter = ALL,
    after: str | None,
    limit: int,
) -> list[BatchView]:
    """A tenant's batches or jobs of a filter, newest first, after the one named, which may be gone; raise NotFound."""
    place = cursor.place(tx, tenant, Listed(kind), after)
    gone = timedelta(seconds=settings.worker_gone_seconds)
    seen = batch_lists.page(tx.conn, tenant, kind=kind, chosen=chosen, after=place, limit=limit, gone=gone)
    return with_outlooks(tx, seen, settings)


def with_outlooks(tx: Transaction, seen: BatchesSeen, settings: Settings) -> list[BatchView]:
    """Batches that were seen, as their caller sees them."""
    found = outlook.of_all(tx, seen, settings)
    return [BatchView(one, found[one.id].waiting, found[one.id].expected) for one in seen.batches]


def totals(tx: Transaction, tenant: str, kind: str) -> BatchTotals:
    """How many there are, by state and lane."""
    since = timedelta(days=TOTALS_DAYS)
    found = batch_lists.totals(tx.conn, tenant, kind=kind, since=since, most=MOST_COUNTED)
    return BatchTotals(found, batches.now(tx.conn) - since)
