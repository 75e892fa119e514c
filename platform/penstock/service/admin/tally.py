"""Tally: what ended is added to the counts, and so are the keeper's own ticks and faults of the blob store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from penstock.blobs import fault_tally
from penstock.domain.api_errors import Unavailable
from penstock.domain.work.batch_ends import counted
from penstock.service.core.transaction import Database, Transaction
from penstock.store.batches import batch_ends
from penstock.store.work import counts

MOST: Final = 5_000


def ended(tx: Transaction) -> int:
    """Count batches and jobs that ended, `MOST` of them at most; how many. Each is counted once."""
    ends = batch_ends.take(tx.conn, MOST)
    counts.add_all(tx.conn, counted(ends))
    return len(ends)


def blob_errors(tx: Transaction, faults: Mapping[str, int]) -> None:
    """Count faults of the blob store that a process met, by kind."""
    counts.add_all(tx.conn, {f"blob_errors/{kind}": number for kind, number in faults.items()})


def write_blob_errors(db: Database) -> None:
    """Count what this process met since the last time; while the database is away it waits for the next time."""
    if not (faults := fault_tally.take()):
        return
    try:
        db.run(blob_errors, faults)
    except Unavailable:
        fault_tally.put_back(faults)


def ticks(tx: Transaction, number: int, milliseconds: int, failed: int) -> None:
    """Count a keeper's ticks, the time that they took, and duties in them that failed."""
    told = {"keeper_ticks": number, "keeper_tick_milliseconds": milliseconds, "keeper_duties_failed": failed}
    counts.add_all(tx.conn, told)
