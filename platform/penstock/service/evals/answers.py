"""Answers of a run's batch, in the order of their custom_ids, each beside what was expected of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import Unreadable
from penstock.domain.evals.run import EvalRun, RunFailed
from penstock.domain.work.batch import Batch, BatchState
from penstock.formats import references
from penstock.formats.answers.answer_text import answer_text
from penstock.formats.ended import EndedLine
from penstock.service.core.transaction import Database
from penstock.service.evals.eval_work import Hold
from penstock.service.evals.sorted_records import SortedRecords
from penstock.service.results import results
from penstock.store.batches import batches

_NOT_ASKED: Final = frozenset({"batch_cancelled", "batch_expired", "batch_failed"})
"""Codes of lines that no engine was asked."""


@dataclass(frozen=True, slots=True)
class RunAnswer:
    """How one line ended. Without a text the reason says why."""

    custom_id: str
    text: str | None
    reason: str | None
    asked: bool
    expected: bytes
    """JSON; empty if nothing is expected."""


class _Kept(msgspec.Struct, array_like=True):
    text: str | None
    reason: str | None
    asked: bool
    expected: bytes


_read_kept = msgspec.msgpack.Decoder(_Kept).decode
_write_kept = msgspec.msgpack.Encoder().encode


def batch_of(db: Database, run: EvalRun) -> Batch:
    """The batch whose answers are scored; raise RunFailed if it is gone, or did not end as it must."""
    batch = db.run(lambda tx: batches.get(tx.conn, run.tenant, run.batch or ""))
    if batch is None:
        raise RunFailed("batch_gone", f"The batch {run.batch} was deleted.")
    if run.owns_batch and batch.state is not BatchState.COMPLETED:
        why = f": {batch.errors[0]['message']}" if batch.errors else ""
        told = f"The batch {batch.id} was made for this run and has {batch.state}{why}"
        raise RunFailed(f"batch_{batch.state}", told)
    return batch


def read(db: Database, blobs: Blobs, batch: Batch, folder: Path, hold: Hold) -> SortedRecords:
    """All answers by custom_id; raise RunFailed if what the batch answered is gone."""
    found = SortedRecords(folder, "answers")
    try:
        for line, end in results.of(db, blobs, batch):
            hold.tick()
            if end.skipped is None and end.custom_id is not None:
                found.add(end.custom_id.encode(), _write_kept(_kept(line, end)))
    except Unreadable as error:
        raise RunFailed("results_gone", f"The results of {batch.id} can't be read: {error}") from error
    return found


def fault_of(end: EndedLine) -> str:
    """Why a line that failed has no answer, in a word: our code, else the engine's, else its status."""
    return (end.code or min(end.codes, default=str(end.status)))[:100]


def _kept(line: bytes, end: EndedLine) -> _Kept:
    expected = references.expected_in(line)
    if end.failed:
        return _Kept(None, f"no answer: {fault_of(end)}", end.code not in _NOT_ASKED, expected)
    text = answer_text(end.body)
    return _Kept(text, None if text is not None else "the answer has no text", True, expected)


def joined(answers: SortedRecords, expected: Iterator[tuple[bytes, bytes]] | None) -> Iterator[RunAnswer]:
    """Each answer with what is expected of it: by the references, else by its own line."""
    head = next(expected, None) if expected is not None else None
    for key, value in answers:
        kept = _read_kept(value)
        if expected is not None:
            while head is not None and head[0] < key:
                head = next(expected, None)
            kept.expected = head[1] if head is not None and head[0] == key else b""
        yield RunAnswer(key.decode(), kept.text, kept.reason, kept.asked, kept.expected)
