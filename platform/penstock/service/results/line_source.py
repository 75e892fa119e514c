"""Line sources: the output lines of a batch by number: from its files once it ended, from its segments before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import Gone
from penstock.domain.file import File
from penstock.domain.work.batch import Batch
from penstock.domain.work.error_group import OTHER
from penstock.domain.work.line_query import MOST_LINE, LineQuery, LineState
from penstock.formats import plan, told_line
from penstock.service.core.transaction import AsyncDatabase
from penstock.service.results.indexed_file import IndexedFile, NumberedLine, ReadBudget, merged
from penstock.store.batches import files
from penstock.store.work import line_places
from penstock.store.work.line_places import LinePlace

PAGE_BYTES: Final = 16 * 1024 * 1024
"""What one page reads at most; it is shorter then."""
_READS_AT_ONCE: Final = 4
_PLACES_WITH_CODE: Final = 2_000
_OPEN_WINDOW: Final = 1_000
_OPEN_WINDOWS: Final = 10
_MOST_ALIKE: Final = 100
"""Lines that are looked at for one custom_id: a batch that skips bad lines may have it twice."""


@dataclass(frozen=True)
class FoundLines:
    """Lines with their numbers, without bytes where a line is open."""

    lines: Sequence[NumberedLine]
    next_after: int | None
    """Behind which line more may come; None: these were the last ones."""


async def input_file(db: AsyncDatabase, blobs: Blobs, batch: Batch) -> IndexedFile | None:
    """A batch's input with its index; None if it is gone, or has none."""
    if batch.input_file is None:
        return None
    file = (await _files(db, batch, [batch.input_file])).get(batch.input_file)
    return await IndexedFile.open(blobs, file) if file and file.index_key else None


async def find(db: AsyncDatabase, blobs: Blobs, batch: Batch, query: LineQuery) -> FoundLines:
    """The lines that a query wants of a batch whose lines are in no rows.

    Raises Gone if its files are, or have no index, and Unreadable.
    """
    numbers = None if query.custom_id is None else await _alike(db, blobs, batch, query)
    if batch.ended and (batch.output_file or batch.error_file):
        return await _of_files(db, blobs, batch, query, numbers)
    segments = _Segments(db, blobs, batch)
    if numbers is not None:
        return await segments.these(query, numbers)
    if query.state is LineState.OPEN or (query.state is None and not query.wants_groups):
        return await segments.window(query)
    return await segments.recorded(query)


async def _alike(db: AsyncDatabase, blobs: Blobs, batch: Batch, query: LineQuery) -> list[int]:
    source = await input_file(db, blobs, batch)
    if source is None:
        message = "Lines are found by custom_id in the index of the input file, which is gone or has none."
        raise Gone(message, code="input_gone", param="custom_id")
    numbers = await source.numbers_of(query.custom_id or "")
    return [number for number in numbers if number > query.after][:_MOST_ALIKE]


async def _of_files(
    db: AsyncDatabase, blobs: Blobs, batch: Batch, query: LineQuery, numbers: list[int] | None
) -> FoundLines:
    if query.state is LineState.OPEN or (query.state is LineState.ANSWERED and query.wants_groups):
        return FoundLines((), None)
    answered = query.state is not LineState.FAILED and not query.wants_groups
    wanted = [batch.output_file] * answered + [batch.error_file] * (query.state is not LineState.ANSWERED)
    opened = [await IndexedFile.open(blobs, one) for one in await _indexed(db, batch, [id for id in wanted if id])]
    if numbers is not None:
        found = [(number, await one.find(number)) for number in numbers for one in opened]
        return _ended([(number, line) for number, line in found if line is not None and _takes(query, line)], query)
    budget = ReadBudget(PAGE_BYTES)
    lines: list[NumberedLine] = []
    masks = [_mask(one, query) for one in opened]
    async for number, line in merged(
        *[one.lines(query.after, budget, mask) for one, mask in zip(opened, masks, strict=True)]
    ):
        if line is None:
            return FoundLines(lines, number - 1)
        if _takes(query, line):
            if len(lines) == query.limit:
                return FoundLines(lines, lines[-1][0])
            lines.append((number, line))
    return FoundLines(lines, None)


def _mask(file: IndexedFile, query: LineQuery) -> int | None:
    if not query.wants_groups:
        return None
    takes = [query.takes(group.status, group.code) or group.code == OTHER for group in file.front.groups]
    return sum(1 << place for place, taken in enumerate(takes) if taken)


async def _indexed(db: AsyncDatabase, batch: Batch, ids: list[str]) -> list[File]:
    found = await _files(db, batch, ids)
    if len(found) < len(ids):
        raise Gone("The files with these lines were deleted, or have expired.", code="results_gone")
    if any(file.index_key is None for file in found.values()):
        message = "It ended before lines were indexed: read its output_file_id and error_file_id."
        raise Gone(message, code="not_indexed")
    return [found[id] for id in ids]


async def _files(db: AsyncDatabase, batch: Batch, ids: list[str]) -> dict[str, File]:
    return await db.autocommit(lambda tx: files.some(tx.conn, batch.tenant, ids))


def _takes(query: LineQuery, line: bytes) -> bool:
    """Whether a recorded line is wanted."""
    if query.state is None and not query.wants_groups and query.custom_id is None:
        return True
    told = told_line.read(line)
    if query.custom_id is not None and told.custom_id != query.custom_id:
        return False
    if query.state is not None and (query.state is LineState.FAILED) != (told.failure is not None):
        return False
    return not query.wants_groups or (told.failure is not None and query.takes(told.status, told.failure.code))


def _ended(lines: Sequence[NumberedLine], query: LineQuery) -> FoundLines:
    shown = lines[: query.limit]
    return FoundLines(shown, shown[-1][0] if len(lines) > len(shown) else None)


class _Segments:
    """The lines of a batch that has no files yet."""

    def __init__(self, db: AsyncDatabase, blobs: Blobs, batch: Batch) -> None:
        self._db = db
        self._blobs = blobs
        self._batch = batch
        self._names = batch.tenant, batch.id

    async def recorded(self, query: LineQuery) -> FoundLines:
        """Lines that failed, or were answered."""
        failed = query.wants_groups or query.state is LineState.FAILED
        if query.state is LineState.ANSWERED and query.wants_groups:
            return FoundLines((), None)
        limit = _PLACES_WITH_CODE if query.wants_groups else query.limit + 1
        places = await self._db.autocommit(
            lambda tx: line_places.recorded(
                tx.conn, *self._names, after=query.after, until=MOST_LINE, limit=limit, failed=failed
            )
        )
        wanted = places if query.wants_groups else places[: query.limit]
        lines: list[NumberedLine] = []
        for number, line in await self._read(wanted):
            if line is None:
                return FoundLines(lines, number - 1)
            if _takes(query, line):
                if len(lines) == query.limit:
                    return FoundLines(lines, lines[-1][0])
                lines.append((number, line))
        return FoundLines(lines, wanted[-1].number if wanted and len(places) == limit else None)

    async def these(self, query: LineQuery, numbers: Sequence[int]) -> FoundLines:
        """Lines with these numbers."""
        places = await self._db.autocommit(lambda tx: line_places.these(tx.conn, *self._names, numbers))
        found = dict(await self._read(places))
        lines: list[NumberedLine] = []
        for number in numbers:
            line = found.get(number)
            if number not in found:
                if query.state in (None, LineState.OPEN) and not query.wants_groups:
                    lines.append((number, None))
            elif line is not None and query.state is not LineState.OPEN and _takes(query, line):
                lines.append((number, line))
        return _ended(lines, query)

    async def window(self, query: LineQuery) -> FoundLines:
        """All lines, or those that are open, by looking at the next so many numbers."""
        last = await self._db.autocommit(lambda tx: line_places.last_line(tx.conn, *self._names))
        only_open = query.state is LineState.OPEN
        width, windows = (_OPEN_WINDOW, _OPEN_WINDOWS) if only_open else (query.limit, 1)
        after, lines = query.after, list[NumberedLine]()
        for _ in range(windows):
            until = min(after + width, last)
            if until <= after:
                break
            places = await self._within(after, until)
            if only_open:
                recorded = {place.number for place in places}
                lines += [(number, None) for number in range(after + 1, until + 1) if number not in recorded]
                if len(lines) > query.limit:
                    return _ended(lines, query)
            else:
                found = dict(await self._read(places))
                for number in range(after + 1, until + 1):
                    if number in found and found[number] is None:
                        return FoundLines(lines, number - 1)
                    lines.append((number, found.get(number)))
            after = until
        return FoundLines(lines, after if after < last else None)

    async def _within(self, after: int, until: int) -> list[LinePlace]:
        return await self._db.autocommit(
            lambda tx: line_places.recorded(tx.conn, *self._names, after=after, until=until, limit=until - after)
        )

    async def _read(self, places: Sequence[LinePlace]) -> list[NumberedLine]:
        """These lines, in this order; from the first that is in a segment too much on, without bytes."""
        budget, segments = ReadBudget(PAGE_BYTES), dict[int, LinePlace]()
        for place in places:
            if place.segment not in segments and not budget.take(place.bytes):
                break
            segments[place.segment] = place
        numbers = {place.number for place in places}
        found: dict[int, bytes] = {}
        gate = asyncio.Semaphore(_READS_AT_ONCE)

        async def read(place: LinePlace) -> None:
            async with gate:
                data = await self._blobs.part(place.blob_key or "", 0, place.bytes)
                found.update((number, line) for number, line in plan.unframe(data) if number in numbers)

        await asyncio.gather(*[read(place) for place in segments.values()])
        return [(place.number, found.get(place.number)) for place in places]
