"""Assemble: fetch segments → index → fill what was not answered → write output and error file → commit.

Running it again from any point gives the same bytes. Memory is 17 bytes a line; scratch equals the answers' size.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import BinaryIO, Final

import structlog

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import LeaseLost
from penstock.domain.line_errors import WHY_UNANSWERED
from penstock.domain.work.batch import Batch, BatchEnd, BatchState
from penstock.domain.work.error_group import ErrorGroup
from penstock.domain.work.segment import Segment
from penstock.failpoint import failpoint
from penstock.formats import input as lines
from penstock.formats import output, plan
from penstock.formats.failure import FailureCounts
from penstock.formats.line_index import RESULT_MARK_BYTES, RESULT_MARK_LINES, Marks
from penstock.service.core import scratch
from penstock.service.core.ids import blob_key, fresh
from penstock.service.core.transaction import Database, Transaction
from penstock.service.lifecycle import closing
from penstock.service.results import trace_file
from penstock.service.results.merge import merge
from penstock.service.results.result_file import Written, publish
from penstock.settings.servers import ServerSettings
from penstock.store.batches import batches, files
from penstock.store.work import batch_leases, line_errors, segments

log = structlog.get_logger()

_PAGE: Final = 256
_READS_AT_ONCE: Final = 8
"""Segments in memory at once: a second's answers each."""


@dataclass(frozen=True)
class Assembled:
    """How an assembly ended: lines in the output file and in the error file."""

    batch: str
    state: BatchState
    answered: int
    failed: int


class Index:
    """Where each line's output is on scratch, by line number."""

    def __init__(self) -> None:
        self.offsets = array("Q")
        self.lengths = array("I")
        self.failed = bytearray()
        self.count = 0

    def add(self, number: int, offset: int, length: int, failed: bool) -> bool:
        """Note a line's place; False if the line has one already, which stays."""
        missing = number + 1 - len(self.lengths)
        if missing > 0:
            self.offsets.extend(_zeros(missing, "Q"))
            self.lengths.extend(_zeros(missing, "I"))
            self.failed.extend(bytes(missing))
        if self.lengths[number]:
            return False
        self.offsets[number], self.lengths[number], self.failed[number] = offset, length, failed
        self.count += 1
        return True

    def has(self, number: int) -> bool:
        """Say whether the line has a place."""
        return number < len(self.lengths) and self.lengths[number] > 0

    def places(self, failed: bool) -> Iterator[tuple[int, int, int]]:
        """Number, offset and length of the lines of one file, in input order."""
        for number, length in enumerate(self.lengths):
            if length and bool(self.failed[number]) == failed:
                yield number, self.offsets[number], length


def _zeros(count: int, kind: str) -> array[int]:
    """So many zeros."""
    return array(kind, bytes(count * array(kind).itemsize))


def assemble(db: Database, blobs: Blobs, batch: Batch, lease: int, settings: ServerSettings) -> Assembled:
    """Write a finalizing batch's files and end it; raise LeaseLost if somebody else may be at it."""
    finish_as = batch.finish_as or BatchState.COMPLETED
    scratch.check(settings.scratch_dir, db.run(lambda tx: segments.bytes_of_batch(tx.conn, batch.id)))
    with scratch.folder(settings.scratch_dir, "assemble-") as folder:
        path = folder / "answers"
        with path.open("wb") as answers:
            index = fetch(read(db, blobs, batch), answers)
            if index.count < batch.total:
                fill(batch, blobs, answers, index, WHY_UNANSWERED[finish_as])
        with path.open("rb") as answers:
            output_file = write(db, blobs, batch, answers, index, "output")
            counts = FailureCounts()
            error_file = write(db, blobs, batch, answers, index, "error", counts)
            merged = merge(db, blobs, batch, everything(answers, index))
        trace = trace_file.write(db, blobs, batch, folder) if batch.trace else None
    failpoint("assemble.written")
    db.run(commit, batch, lease, finish_as, output_file, error_file, *merged, trace, counts.groups)
    return Assembled(
        batch.id, finish_as, output_file.lines if output_file else 0, error_file.lines if error_file else 0
    )


def _page(tx: Transaction, batch: str, after: Segment | None) -> list[Segment]:
    return segments.page(tx.conn, batch, after=after, limit=_PAGE)


def read(db: Database, blobs: Blobs, batch: Batch) -> Iterator[tuple[Segment, bytes]]:
    """All segments with their bytes, slice by slice; a few are read at once, since a store answers each in its time."""

    def look(piece: Segment) -> bytes:
        return piece.data if piece.data is not None else blobs.read(piece.blob_key or "")

    after: Segment | None = None
    with ThreadPoolExecutor(_READS_AT_ONCE, thread_name_prefix="read") as pool:
        while page := db.run(_page, batch.id, after):
            for at in range(0, len(page), _READS_AT_ONCE):
                few = page[at : at + _READS_AT_ONCE]
                yield from zip(few, pool.map(look, few), strict=True)
            after = page[-1]


def fetch(pieces: Iterable[tuple[Segment, bytes]], answers: BinaryIO) -> Index:
    """Copy all segments to scratch and index their lines; of one slice, in the order in which they were accepted."""
    index = Index()
    offset = 0
    for piece, data in pieces:
        for number, line in plan.unframe(data):
            if not index.add(number, offset, len(line) + 1, number in piece.failed_lines):
                log.error("line_doubled", segment=piece.id, line=number)  # the fence forbids it: a bug, if ever seen
                continue
            offset += answers.write(line + b"\n")
    return index


def fill(batch: Batch, blobs: Blobs, answers: BinaryIO, index: Index, reason: tuple[str, str]) -> None:
    """Give each planned line without an answer an output line that says why."""
    assert batch.plan_key is not None, "only planned batches are assembled"
    offset = answers.tell()
    for number, line in planned(blobs, batch.plan_key):
        if not index.has(number):
            unanswered = output.unanswered_line(batch.id, number, lines.custom_id_of(line), reason) + b"\n"
            index.add(number, offset, len(unanswered), True)
            offset += answers.write(unanswered)


def planned(blobs: Blobs, key: str) -> Iterator[tuple[int, bytes]]:
    """The plan copy's lines, read in pieces."""
    rest = b""
    for piece in blobs.pieces(key):
        whole, newline, rest = (rest + piece).rpartition(b"\n")
        yield from plan.unframe(whole + newline)


def write(
    db: Database,
    blobs: Blobs,
    batch: Batch,
    answers: BinaryIO,
    index: Index,
    which: str,
    counts: FailureCounts | None = None,
) -> Written | None:
    """Write the output or the error file in input order, and its line index; None if it would be empty.

    `counts` are told of each line of the error file.
    """
    places = index.places(failed=which == "error")
    first = next(places, None)
    if first is None:
        return None
    key = blob_key(batch.tenant, "files")
    db.run(lambda tx: files.intend(tx.conn, key))
    digest, size = hashlib.sha256(), 0
    marks, numbers = Marks(RESULT_MARK_LINES, RESULT_MARK_BYTES), array("I")
    with blobs.writer(key) as file:
        for number, offset, length in itertools.chain([first], places):
            line = os.pread(answers.fileno(), length, offset)
            digest.update(line)
            file.write(line)
            marks.line(number, size)
            numbers.append(number)
            if counts is not None:
                marks.group(counts.add(number, line[:-1]))
            size += length
    failpoint("index.writing")
    index_key = blob_key(batch.tenant, "indexes")
    db.run(lambda tx: files.intend(tx.conn, index_key))
    blobs.put(index_key, marks.blob(size, numbers=numbers, groups=counts.groups if counts else ()))
    sealed = size, digest.digest(), len(numbers)
    return Written(fresh("file-"), key, f"{batch.id}_{which}.jsonl", *sealed, index_key=index_key)


def everything(answers: BinaryIO, index: Index) -> Iterator[bytes]:
    """All output lines in input order, without their line ends."""
    for offset, length in zip(index.offsets, index.lengths, strict=True):
        if length:
            yield os.pread(answers.fileno(), length - 1, offset)


def commit(
    tx: Transaction,
    batch: Batch,
    lease: int,
    finish_as: BatchState,
    output_file: Written | None,
    error_file: Written | None,
    merged_output: Written | None = None,
    merged_error: Written | None = None,
    trace: Written | None = None,
    errors: Sequence[ErrorGroup] = (),
) -> None:
    """Make the files visible and end the batch in one step, if the lease is still the batch's own."""
    batches.lock(tx.conn, batch.id)
    if not batches.holds(tx.conn, batch.id, lease, BatchState.FINALIZING):
        raise LeaseLost
    life = None if batch.output_expires_seconds is None else timedelta(seconds=batch.output_expires_seconds)
    for written in (output_file, error_file, merged_output, merged_error, trace):
        if written is not None:
            publish(tx, batch.tenant, written, purpose="batch_output", ttl=life)
    ending = BatchEnd(
        finish_as,
        output_file=output_file.id if output_file else None,
        error_file=error_file.id if error_file else None,
        merged_output_file=merged_output.id if merged_output else None,
        merged_error_file=merged_error.id if merged_error else None,
        trace_file=trace.id if trace else None,
    )
    line_errors.keep(tx.conn, batch.id, errors)
    closing.end(tx, [batch.id], ending)
    batch_leases.settle(tx.conn, lease)
