"""Tally: what ended is added to the counts, and so are the keeper's own ticks."""

from __future__ import annotations

from typing import Final

from penstock.domain.work.batch_ends import counted
from penstock.service.core.transaction import Transaction
from penstock.store.batches import batch_ends
from penstock.store.work import counts

MOST: Final = 5_000


def ended(tx: Transaction) -> int:
    """Count batches and jobs that ended, `MOST` of them at most; how many. Each is counted once."""
    ends = batch_ends.take(tx.conn, MOST)
    counts.add_all(tx.conn, counted(ends))
    return len(ends)


def ticks(tx: Transaction, number: int, milliseconds: int, failed: int) -> None:
    """Count a keeper's ticks, the time that they took, and duties in them that failed."""
    told = {"keeper_ticks": number, "keeper_tick_milliseconds": milliseconds, "keeper_duties_failed": failed}
    counts.add_all(tx.conn, told)
