"""Skipped lines: what validation refuses of a batch that goes on without, as segments in the blob store.

Each stands there as it will in the error file. Memory is one segment, and four bytes a line.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import LeaseLost
from penstock.domain.work.batch import Batch, LineError
from penstock.domain.work.error_group import ErrorGroup
from penstock.domain.work.lane import Lane
from penstock.domain.work.segment import Piece
from penstock.formats import failure, output, plan
from penstock.service.core.ids import blob_key
from penstock.service.core.transaction import Database, Transaction
from penstock.store.batches import files
from penstock.store.work import leases, segments, skipped

_SEGMENT_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True)
class SkippedSegment:
    """Lines in one blob, in that order."""

    key: str
    bytes: int
    numbers: array[int]
    errors: list[ErrorGroup]


class SkippedLines:
    """The skipped lines of one validation, as they are found."""

    def __init__(self, db: Database, blobs: Blobs, batch: Batch) -> None:
        self.count = 0
        self.segments: list[SkippedSegment] = []
        self._db = db
        self._blobs = blobs
        self._batch = batch
        self._rows: list[bytes] = []
        self._bytes = 0
        self._numbers = array("I")

    def add(self, error: LineError, custom_id: str | None) -> None:
        """Skip one line, which the error names."""
        assert error.line is not None, "what is wrong with the file as a whole skips no line"
        row = plan.frame(error.line, output.skipped_line(self._batch.id, custom_id, error))
        self._rows.append(row)
        self._numbers.append(error.line)
        self._bytes += len(row)
        self.count += 1
        if self._bytes >= _SEGMENT_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is not written yet; to be called once more after the last line."""
        if not self._rows:
            return
        key = blob_key(self._batch.tenant, "segments")
        self._db.run(lambda tx: files.intend(tx.conn, key))
        self._blobs.put(key, b"".join(self._rows))
        errors = failure.counted([one for row in self._rows for one in plan.unframe(row)])
        self.segments.append(SkippedSegment(key, self._bytes, self._numbers, errors))
        self._rows, self._bytes, self._numbers = [], 0, array("I")


def record(tx: Transaction, batch: str, lane: Lane, lease: int, found: SkippedLines) -> None:
    """Record the skipped lines as a slice that is done, under this validation lease; raise LeaseLost.

    The caller's transaction has begun the batch, which locks it.
    """
    slice, held = skipped.hold(
        tx.conn,
        batch,
        lane,
        lines=found.count,
        first_line=min(min(one.numbers) for one in found.segments),
        last_line=max(max(one.numbers) for one in found.segments),
        lease=lease,
        nonce=uuid4(),
    )
    for seq, one in enumerate(found.segments, 1):
        numbers = one.numbers.tolist()
        usage, errors = output.NO_USAGE, one.errors
        piece = Piece(slice, held, seq, numbers, numbers, [], usage, one.bytes, blob_key=one.key, errors=errors)
        if not segments.flush(tx.conn, [piece]):
            raise LeaseLost  # its blob was given up meanwhile: whoever takes the batch next writes others
    leases.settle(tx.conn, [(slice, held)])


def give_up(tx: Transaction, found: SkippedLines) -> None:
    """Let the blobs go: the batch failed as a whole."""
    files.doom(tx.conn, [one.key for one in found.segments])
