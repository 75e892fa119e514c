"""Answer pages: a batch's answers in the order in which they were recorded, to be read while it runs.

The cursor is how many a reader has had. That order never changes, so whoever follows it gets each line once. At a
batch's end come, in the plan's order, the lines that have no answer. It lasts as long as the segments, which a sweep
deletes some time after the end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import BadRequest, Gone, NotFound, Unreadable
from penstock.domain.line_errors import WHY_UNANSWERED
from penstock.domain.work.answer_part import AnswerPart, UnansweredPart
from penstock.domain.work.batch import Batch
from penstock.formats import input as lines
from penstock.formats import output, plan
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.store.batches import batches
from penstock.store.work import answer_order

_PATIENCE_SECONDS: Final = 2.0
_LOOK_AGAIN_SECONDS: Final = 0.005
_ALL_IDS: Final = 2**63 - 1


@dataclass(frozen=True)
class AnswerPage:
    """What a reader gets next."""

    batch: Batch
    parts: Sequence[AnswerPart]
    unanswered: Sequence[UnansweredPart]
    last: int
    """The cursor behind it."""
    incomplete: bool
    """Whether more comes after it, now or later."""


async def page(
    db: AsyncDatabase, tenant: str, id: str, *, after: int, limit: int, patience_seconds: float = _PATIENCE_SECONDS
) -> AnswerPage:
    """At most `limit` lines of a batch behind the first `after`; none if none is certain to be next yet.

    Raises NotFound, BadRequest for a cursor that the batch can't have given, and Gone once the order is forgotten.
    """
    batch = await db.autocommit(_batch, tenant, id)
    if after > batch.total:
        raise BadRequest(f"Invalid 'after': the batch has {batch.total} lines.", param="after")
    # One that has ended is recorded no more: all is seen. It is read first, or an end in between would cut its rest.
    last_id = _ALL_IDS if batch.ended else await _settled(db, patience_seconds)
    found = await db.autocommit(
        lambda tx: answer_order.page(tx.conn, tenant, id, last_id=last_id, after=after, limit=limit)
    )
    if found.kept < found.recorded:  # it ended a while ago, or is being deleted
        raise Gone(
            "The order in which this batch's answers came is kept no more: read its output_file_id and error_file_id.",
            code="results_in_files",
        )
    if not batch.ended:
        return AnswerPage(batch, found.parts, (), max(after, min(found.settled, after + limit)), True)
    end = min(after + limit, found.lines)
    behind = max(after, found.kept)  # what is read already, or in `parts`
    unanswered = (
        [] if behind >= end else await db.autocommit(_unanswered, tenant, id, behind - found.kept, end - behind)
    )
    if found.lines < batch.total or sum(gap.stop - gap.first for gap in unanswered) < end - behind:
        raise NotFound("batch", id, param="batch_id")  # deleted since, or in part
    return AnswerPage(batch, found.parts, unanswered, end, end < found.lines)


def _batch(tx: Transaction, tenant: str, id: str) -> Batch:
    batch = batches.get(tx.conn, tenant, id)
    if batch is None or batch.kind != "batch":
        raise NotFound("batch", id, param="batch_id")
    return batch


def _unanswered(tx: Transaction, tenant: str, id: str, after: int, limit: int) -> list[UnansweredPart]:
    return answer_order.unanswered(tx.conn, tenant, id, after=after, limit=limit)


async def _settled(db: AsyncDatabase, patience_seconds: float) -> int:
    """An id of segments up to which nothing more can appear; 0 if somebody who is recording takes too long."""
    last_id = await db.autocommit(lambda tx: answer_order.last_id(tx.conn))
    recording = await db.autocommit(_writers)
    give_up_at = time.monotonic() + patience_seconds
    while recording:
        if time.monotonic() >= give_up_at:
            return 0
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        recording &= await db.autocommit(_writers)
    return last_id


def _writers(tx: Transaction) -> frozenset[str]:
    return answer_order.writers(tx.conn)


async def stream(db: AsyncDatabase, blobs: Blobs, page: AnswerPage) -> AsyncIterator[bytes]:
    """The bytes of a page, each line as in the output or error file; raises Unreadable. Memory is flat."""
    for part in page.parts:
        at = 0
        async for some in plan.unframed(blobs.stream(part.blob_key, 0, part.bytes)):
            yield _joined([line for _, line in some[max(0, part.first - at) : max(0, part.stop - at)]])
            at += len(some)
            if at >= part.stop:
                break
    for gap in page.unanswered:
        async for piece in _without_answer(db, blobs, page.batch, gap):
            yield piece


async def _without_answer(db: AsyncDatabase, blobs: Blobs, batch: Batch, gap: UnansweredPart) -> AsyncIterator[bytes]:
    recorded = frozenset(await db.autocommit(lambda tx: answer_order.recorded_lines(tx.conn, batch.tenant, gap.slice)))
    if len(recorded) < gap.recorded:
        raise Unreadable(f"segments of {batch.id} were swept while it was read")
    reason, at = WHY_UNANSWERED[batch.state], 0
    whole = blobs.stream(batch.plan_key or "", gap.plan_offset, gap.plan_offset + gap.plan_bytes)
    async for some in plan.unframed(whole):
        missing = [(number, line) for number, line in some if number not in recorded]
        yield _joined(
            [
                output.unanswered_line(batch.id, number, lines.custom_id_of(line), reason)
                for number, line in missing[max(0, gap.first - at) : max(0, gap.stop - at)]
            ]
        )
        at += len(missing)
        if at >= gap.stop:
            break


def _joined(some: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in some)
