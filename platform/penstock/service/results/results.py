"""Results: how every line of an ended batch ended, in input order, beside the line itself; memory is flat.

A batch's output and error file are both in input order and each line is in one of them: so the three are read at once,
like braiding, and nothing is looked up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import Unreadable
from penstock.domain.work.batch import Batch
from penstock.domain.work.terms import OnInvalid
from penstock.formats import ended
from penstock.formats import input as lines
from penstock.formats.ended import EndedLine
from penstock.service.core.transaction import Database
from penstock.service.views import batch_view
from penstock.store.batches import batches, retries

Braid = Iterator[tuple[bytes, EndedLine]]

_LONGEST: Final = 256 * 1024 * 1024
"""No setting of `max_line_bytes` is sensible beyond it."""


def of(db: Database, blobs: Blobs, batch: Batch) -> Braid:
    """Each line of a batch as it was asked, and how it ended; raises Unreadable."""
    if batch.inline:
        return ((asked, _read(found)) for asked, found in db.run(batch_view.asked_and_answered, batch))
    return _braid(db, blobs, batch, _asked(db, blobs, batch), (batch.output_file, batch.error_file))


def merged(db: Database, blobs: Blobs, batch: Batch) -> Iterator[EndedLine]:
    """How each line of the batch where the chain begins ended in the end, this batch's own retries included."""
    if batch.root is None:
        return (one for _, one in of(db, blobs, batch))
    root = db.run(lambda tx: batches.find(tx.conn, batch.root or ""))
    assert root is not None, "batches are never deleted"
    found = (batch.merged_output_file, batch.merged_error_file)
    return (one for _, one in _braid(db, blobs, batch, _asked(db, blobs, root), found))


def _asked(db: Database, blobs: Blobs, batch: Batch) -> Iterator[tuple[int, bytes]]:
    """The lines of its input, each with its number."""
    if batch.inline:
        return enumerate([asked for asked, _ in db.run(batch_view.asked_and_answered, batch)], 1)
    assert batch.input_key is not None, "it was validated"
    tidy = ((number, lines.tidy(raw, number)) for number, raw in enumerate(_raw(blobs, batch), 1))
    return ((number, line) for number, line in tidy if line)


def _raw(blobs: Blobs, batch: Batch) -> Iterator[bytes]:
    """Of a batch that skipped lines, one may be as long as its file: what can't have been asked is cut."""
    return blobs.lines(batch.input_key or "", longest=_LONGEST if batch.on_invalid is OnInvalid.SKIP else None)


def _braid(
    db: Database, blobs: Blobs, batch: Batch, asked: Iterable[tuple[int, bytes]], found: tuple[str | None, ...]
) -> Braid:
    named = [id for id in found if id is not None]
    keys = db.run(lambda tx: retries.keys(tx.conn, batch.tenant, named))
    if len(keys) < len(named):
        raise Unreadable(f"result files of {batch.id} are gone")
    strands = [map(_read, blobs.lines(keys[id])) for id in named]
    heads = [next(strand, None) for strand in strands]
    for number, line in asked:
        place = _place(heads, number, line)
        head = None if place is None else heads[place]
        if place is None or head is None:
            raise Unreadable(f"{batch.id} has no result of line {number} where it should be")
        yield line, head
        heads[place] = next(strands[place], None)


def _place(heads: Sequence[EndedLine | None], number: int, line: bytes) -> int | None:
    """Which of the next results is this line's: a skipped one says its number, any other has its custom_id."""
    for place, head in enumerate(heads):
        if head is not None and head.skipped == number:
            return place
    custom_id = lines.custom_id_of(line)
    for place, head in enumerate(heads):
        if head is not None and head.skipped is None and head.custom_id == custom_id:
            return place
    return None


def _read(line: bytes) -> EndedLine:
    try:
        return ended.read(line)
    except (ValueError, KeyError, RecursionError) as error:
        raise Unreadable(f"a result is no output line: {error}") from error
