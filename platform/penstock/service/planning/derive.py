"""Derive: a retry's input, from its parent's lines and how they ended; then it is validated as every batch is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import timedelta

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import LeaseLost
from penstock.domain.work.batch import Batch, BatchEnd, BatchState, LineError
from penstock.domain.work.retry import Retry
from penstock.failpoint import failpoint
from penstock.formats import input as lines
from penstock.formats.ended import EndedLine
from penstock.formats.failure import failure
from penstock.service.core.transaction import Database, Transaction
from penstock.service.lifecycle import closing
from penstock.service.results import results
from penstock.service.results.result_file import ResultFile, Written, publish
from penstock.settings.limits import LimitSettings
from penstock.store.batches import batches, retries
from penstock.store.work import batch_leases

NOTHING = LineError("nothing_to_retry", "No line of the parent is what this retry asks for.")


def derive(db: Database, blobs: Blobs, batch: Batch, lease: int, settings: LimitSettings) -> Batch | None:
    """Write the input of a retry and make it the batch's own; None if no line is to be repeated: then it has failed.

    Raises LeaseLost, and Unreadable.
    """
    assert batch.repeats is not None, "only a retry has no input of its own yet"
    parent = db.run(lambda tx: batches.find(tx.conn, batch.parent or ""))
    assert parent is not None, "batches are never deleted"
    with ResultFile(db, blobs, batch.tenant, f"{batch.id}_input.jsonl") as sheet:
        for line in chosen(results.of(db, blobs, parent), batch.repeats):
            sheet.line(line)
    failpoint("retry.derived")
    if sheet.written is None:
        db.run(_refuse, batch.id, lease)
        return None
    db.run(_adopt, batch, lease, sheet.written, settings)
    return dataclasses.replace(batch, input_key=sheet.written.key)


def chosen(found: results.Braid, repeats: Retry) -> Iterator[bytes]:
    """The lines that are asked again, as they are asked."""
    for line, end in found:
        if _takes(repeats, end):
            yield lines.changed(line, repeats.changes)


def _takes(repeats: Retry, end: EndedLine) -> bool:
    if end.skipped is not None:
        return False  # it would be refused again
    if repeats.custom_ids is not None and end.custom_id not in repeats.custom_ids:
        return False
    if not end.failed:
        return repeats.answered is not None and repeats.takes_answered(end.finish)
    group = failure(end).group_id if repeats.groups else ""
    return repeats.takes_failed(end.status, end.codes if repeats.error_codes else frozenset(), group)


def _adopt(tx: Transaction, batch: Batch, lease: int, written: Written, settings: LimitSettings) -> None:
    if not retries.adopt(tx.conn, batch.id, lease, written.key):
        raise LeaseLost
    life = timedelta(seconds=settings.file_ttl_seconds)
    publish(tx, batch.tenant, written, purpose="batch", ttl=life, id=batch.input_file)


def _refuse(tx: Transaction, batch: str, lease: int) -> None:
    batches.lock(tx.conn, batch)
    if not batches.holds(tx.conn, batch, lease, BatchState.VALIDATING):
        raise LeaseLost
    closing.end(tx, [batch], BatchEnd(BatchState.FAILED, errors=[NOTHING], error_count=1))
    batch_leases.settle(tx.conn, lease)
