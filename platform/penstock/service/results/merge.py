"""Merge: what a retry answered, laid over what its parent had: every line of the root once, in its input order.

The retry's line stands for each that it repeated, but a failure never takes the place of an answer: a truncated answer
is better than none. What validation refused of the parent was never asked, and is not repeated: it stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import structlog

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import Unreadable
from penstock.domain.work.batch import Batch
from penstock.formats import ended
from penstock.formats.ended import EndedLine
from penstock.service.core.transaction import Database
from penstock.service.results import results
from penstock.service.results.result_file import ResultFile, Written
from penstock.store.batches import batches

log = structlog.get_logger()


def merge(db: Database, blobs: Blobs, batch: Batch, own: Iterable[bytes]) -> tuple[Written | None, Written | None]:
    """Write a retry's merged output and error file; `own` are its output lines in input order.

    None and None for what is no retry, and if what its parent had can't be read: its own results stand in any case.
    """
    if batch.parent is None:
        return None, None
    parent = db.run(lambda tx: batches.find(tx.conn, batch.parent or ""))
    assert parent is not None, "batches are never deleted"
    try:
        with (
            ResultFile(db, blobs, batch.tenant, f"{batch.id}_merged_output.jsonl") as answered,
            ResultFile(db, blobs, batch.tenant, f"{batch.id}_merged_error.jsonl") as failed,
        ):
            for one in overlay(results.merged(db, blobs, parent), map(ended.read, own)):
                (failed if one.failed else answered).line(one.line)
    except Unreadable as error:
        log.error("not_merged", batch=batch.id, parent=parent.id, error=str(error))
        return None, None
    return answered.written, failed.written


def overlay(base: Iterable[EndedLine], own: Iterator[EndedLine]) -> Iterator[EndedLine]:
    """The base's lines, and in the place of those that `own` repeats, in the same order, its own; raise Unreadable."""
    head = next(own, None)
    for one in base:
        if head is None or one.skipped is not None or head.custom_id != one.custom_id:
            yield one
            continue
        yield one if head.failed and not one.failed else head
        head = next(own, None)
    if head is not None:
        raise Unreadable(f"the parent has no line {str(head.custom_id)[:64]!r} where it should be")
