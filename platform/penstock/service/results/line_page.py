"""Line pages: a batch's or job's lines as its tenant looks at them, in input order, each with what came of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.blobs.store import Blobs
from penstock.domain.accounts.tokens import Usage
from penstock.domain.api_errors import Conflict, NotFound, Unreadable
from penstock.domain.line_errors import WHY_UNANSWERED
from penstock.domain.work.batch import Batch
from penstock.domain.work.error_group import ErrorGroup, Failure
from penstock.domain.work.line_query import LineQuery, LineState
from penstock.formats import failure, output, plan, told_line
from penstock.formats import input as lines
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.service.results import line_source
from penstock.service.results.indexed_file import NumberedLine
from penstock.service.results.line_source import FoundLines
from penstock.store.batches import batches
from penstock.store.work import line_errors, segments

MOST_TEXT_BYTES: Final = 16 * 1024
"""Of a request or a response that is shown beside its line."""
_MOST_CUSTOM_ID_BYTES: Final = 1_000_000


@dataclass(frozen=True)
class Text:
    """A JSON text, or its beginning."""

    text: str
    cut: bool


@dataclass(frozen=True)
class ShownLine:
    """One line."""

    number: int
    custom_id: str | None
    state: LineState
    status: int | None = None
    failure: Failure | None = None
    usage: Usage = output.NO_USAGE
    finish_reason: str | None = None
    request: Text | None = None
    response: Text | None = None


@dataclass(frozen=True)
class LinePage:
    """Lines of a batch, and behind which number more may come."""

    batch: Batch
    lines: Sequence[ShownLine]
    next_after: int | None


@dataclass(frozen=True)
class Errors:
    """How a batch's lines failed; fewer than `failed` are in the groups if an older release recorded some of them."""

    batch: Batch
    groups: Sequence[ErrorGroup]
    failed: int


async def page(
    db: AsyncDatabase, blobs: Blobs, tenant: str, kind: str, id: str, query: LineQuery, *, request: bool, response: bool
) -> LinePage:
    """The lines that a query wants; raises NotFound, Gone if they can't be had any more, and Unreadable."""
    batch, asked, found = await _found(db, blobs, tenant, kind, id, query)
    if not found.lines:
        return LinePage(batch, (), found.next_after)
    unread = [number for number, line in found.lines if line is None and number not in asked]
    wanted = [number for number, _ in found.lines] if request and not batch.inline else unread
    if wanted and (source := await line_source.input_file(db, blobs, batch)) is not None:
        try:
            asked = {**asked, **await source.inputs(wanted)}
        except Unreadable:
            asked = dict(asked)  # its file is being deleted
    seen = [_seen(number, line, asked, response) for number, line in found.lines if not _is_blank(number, line, asked)]
    if request:
        seen = [dataclasses.replace(one, request=_text(asked.get(one.number))) for one in seen]
    return LinePage(batch, seen, found.next_after)


async def raw_page(
    db: AsyncDatabase, blobs: Blobs, tenant: str, id: str, query: LineQuery
) -> tuple[list[bytes], int, bool]:
    """Output lines of an ended batch in input order, the last one's number, and whether more come.

    Raises NotFound, Conflict until it has ended, Gone and Unreadable.
    """
    batch = await db.autocommit(_batch, tenant, "batch", id)
    if not batch.ended:
        raise Conflict(batch.state, "read", f"It is {batch.state}: its results have an order once it has ended.")
    found = await line_source.find(db, blobs, batch, query)
    last = found.lines[-1][0] if found.lines else query.after
    if found.next_after is not None:
        last = found.next_after
    return [line + b"\n" for _, line in found.lines if line is not None], last, found.next_after is not None


async def errors(db: AsyncDatabase, tenant: str, kind: str, id: str) -> Errors:
    """How the lines of a batch failed by now, the largest groups first; raises NotFound."""
    batch = await db.autocommit(_batch, tenant, kind, id)
    if batch.inline:
        _, found = await db.autocommit(_of_rows, batch)
        told = {n: line for n, line in found if line is not None and told_line.read(line).failure is not None}
        groups = failure.counted(list(told.items()))
        return Errors(batch, sorted(groups, key=lambda one: (-one.lines, one.status, one.code)), len(told))
    groups, failed = await db.autocommit(_groups, tenant, id)
    return Errors(batch, groups, failed)


def _groups(tx: Transaction, tenant: str, id: str) -> tuple[list[ErrorGroup], int]:
    groups = line_errors.of_batch(tx.conn, tenant, id)
    return groups, max(line_errors.failed(tx.conn, tenant, id), sum(one.lines for one in groups))


def _batch(tx: Transaction, tenant: str, kind: str, id: str) -> Batch:
    batch = batches.get(tx.conn, tenant, id)
    if batch is None or batch.kind != kind:
        raise NotFound(kind, id, param=f"{kind}_id")
    return batch


async def _found(
    db: AsyncDatabase, blobs: Blobs, tenant: str, kind: str, id: str, query: LineQuery
) -> tuple[Batch, Mapping[int, bytes], FoundLines]:
    """The batch, requests that are known already, and the lines."""
    batch = await db.autocommit(_batch, tenant, kind, id)
    if not batch.inline:
        return batch, {}, await line_source.find(db, blobs, batch, query)
    asked, rows = await db.autocommit(_of_rows, batch)
    behind = [
        (number, line)
        for number, line in rows
        if number > query.after and _wants(query, _seen(number, line, asked, False))
    ]
    shown = behind[: query.limit]
    return batch, asked, FoundLines(shown, shown[-1][0] if len(behind) > len(shown) else None)


def _wants(query: LineQuery, one: ShownLine) -> bool:
    if query.custom_id is not None and one.custom_id != query.custom_id:
        return False
    if query.state is not None and one.state is not query.state:
        return False
    return not query.wants_groups or (one.failure is not None and query.takes(one.status, one.failure.code))


def _of_rows(tx: Transaction, batch: Batch) -> tuple[dict[int, bytes], list[NumberedLine]]:
    """An inline job's lines as they were asked, and what came of each by now."""
    framed, pieces = segments.of_job(tx.conn, batch.id)
    asked = dict(plan.unframe(framed))
    recorded = {number: line for data in pieces for number, line in plan.unframe(data)}
    if batch.ended:
        reason = WHY_UNANSWERED[batch.state]
        for number, line in asked.items():
            if number not in recorded:
                recorded[number] = output.unanswered_line(batch.id, number, lines.custom_id_of(line), reason)
    return asked, [(number, recorded.get(number)) for number in sorted(asked)]


def _is_blank(number: int, line: bytes | None, asked: Mapping[int, bytes]) -> bool:
    """Whether a number is no line of the batch: an empty line of its input."""
    return line is None and number in asked and not lines.tidy(asked[number], number)


def _seen(number: int, line: bytes | None, asked: Mapping[int, bytes], response: bool) -> ShownLine:
    if line is None:
        raw = lines.tidy(asked.get(number, b""), number)
        return ShownLine(number, lines.told_custom_id(raw, _MOST_CUSTOM_ID_BYTES) if raw else None, LineState.OPEN)
    told = told_line.read(line)
    state = LineState.ANSWERED if told.failure is None else LineState.FAILED
    shown = _text(told.body) if response and told.status is not None else None
    return ShownLine(
        number, told.custom_id, state, told.status, told.failure, told.usage, told.finish_reason, response=shown
    )


def _text(data: bytes | None) -> Text | None:
    if data is None:
        return None
    whole = data.strip(b" \t\r\n")
    cut = len(whole) > MOST_TEXT_BYTES
    return Text(whole[:MOST_TEXT_BYTES].decode("utf-8", "ignore" if cut else "replace"), cut)
