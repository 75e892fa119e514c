"""Trace files: what each member of an ensemble said to each line of a batch, for whoever counts again.

One line for each: the member's output line, with its label in `member`. In the order of the work; of one line in the
members' order.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from penstock.blobs.store import Blobs
from penstock.domain.work.batch import Batch
from penstock.domain.work.fold_claim import FoldRead
from penstock.service.core.transaction import Database, Transaction
from penstock.service.results.member_answers import fetched
from penstock.service.results.result_file import ResultFile, Written
from penstock.store.work import folds
from penstock.store.work.folds import MemberSegment

_AT_ONCE = 100


def write(db: Database, blobs: Blobs, batch: Batch, folder: Path) -> Written | None:
    """Write a batch's trace file, with the help of this folder; None if no ensemble of its lines gathers."""
    after = 0
    with ResultFile(db, blobs, batch.tenant, f"{batch.id}_trace.jsonl") as sheet:
        while some := db.run(_folds, batch.id, after):
            for fold in some:
                with fetched(db.run(_segments, fold.slice), blobs, folder / "members") as answers:
                    for place, line in answers.all():
                        label = msgspec.json.encode(fold.definition.asked[place].label)
                        sheet.line(b'{"member":%b,%b' % (label, line.removeprefix(b"{")))
            after = some[-1].slice
    return sheet.written


def _folds(tx: Transaction, batch: str, after: int) -> list[FoldRead]:
    return folds.of_batch(tx.conn, batch, after=after, limit=_AT_ONCE)


def _segments(tx: Transaction, fold: int) -> list[MemberSegment]:
    return folds.segments(tx.conn, fold)
