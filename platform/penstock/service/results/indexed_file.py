"""Indexed files: lines of a file by their numbers, with a few reads of known size, however long the file is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final, Self

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import Unreadable
from penstock.domain.file import File
from penstock.formats import line_index
from penstock.formats.line_index import HEAD_BYTES, Front

NumberedLine = tuple[int, bytes | None]
"""A line with its number; None: what comes from this number on was not read, since a page has read its bytes."""

_LONGEST_READ: Final = 2 * 1024 * 1024
_READS_AT_ONCE: Final = 8


class ReadBudget:
    """The bytes that one page may read; a first read is always granted, so that each page gets on."""

    def __init__(self, bytes: int) -> None:
        self._left = bytes
        self._whole = bytes

    def take(self, bytes: int) -> bool:
        """Whether so many more may be read."""
        if bytes > self._left and self._left < self._whole:
            return False
        self._left -= bytes
        return True


class IndexedFile:
    """A file with its line index; made with `open`."""

    def __init__(self, blobs: Blobs, file: File, front: Front) -> None:
        self.front = front
        self._blobs = blobs
        self._file = file

    @classmethod
    async def open(cls, blobs: Blobs, file: File) -> Self:
        """Read the index's front; raise Unreadable, also for a file that has none."""
        if file.index_key is None:
            raise Unreadable(f"{file.id} has no line index")
        try:
            head = line_index.read_head(await blobs.part(file.index_key, 0, HEAD_BYTES))
        except ValueError as error:
            raise Unreadable(f"{file.id}: {error}") from error
        return cls(blobs, file, Front(head, await blobs.part(file.index_key, HEAD_BYTES, head.front_end)))

    async def lines(self, after: int, budget: ReadBudget, mask: int | None = None) -> AsyncIterator[NumberedLine]:
        """The lines behind this number, in order; with a mask, only those of such groups, of an error file."""
        place = self.front.next_with(max(0, self.front.place(after)), mask)
        at_once = 1
        while place is not None:
            places: list[int] = []
            while place is not None and len(places) < at_once:
                block = self.front.block(place)
                if not budget.take(block.end - block.start):
                    break
                places.append(place)
                place = self.front.next_with(place + 1, mask)
            for lines in await asyncio.gather(*[self._block(one, mask) for one in places]):
                for number, line in lines:
                    if number > after:
                        yield number, line
            if place is not None and len(places) < at_once:
                yield max(after + 1, self.front.block(place).number), None
                return
            at_once = min(2 * at_once, _READS_AT_ONCE)

    async def find(self, number: int) -> bytes | None:
        """One line; None if it is in another file, or nowhere."""
        place = self.front.place(number)
        return None if place < 0 else dict(await self._block(place)).get(number)

    async def _block(self, place: int, mask: int | None = None) -> Sequence[tuple[int, bytes]]:
        block, key = self.front.block(place), self._file.index_key or ""
        numbers, data, groups = await asyncio.gather(
            self._blobs.part(key, *self.front.numbers_at(block)),
            self._blobs.part(self._file.blob_key, block.start, block.end),
            self._blobs.part(key, *(self.front.places_of(block) if mask is not None else (0, 0))),
        )
        lines = zip(line_index.read_numbers(numbers), data.split(b"\n"), strict=False)
        if mask is None:
            return list(lines)
        return [line for line, group in zip(lines, groups, strict=False) if mask >> group & 1]

    async def numbers_of(self, custom_id: str) -> list[int]:
        """The lines of an input that may have this custom_id, in order."""
        start, end = self.front.ids_at(custom_id)
        return sorted(line_index.numbers_of(await self._blobs.part(self._file.index_key or "", start, end), custom_id))

    async def inputs(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """The raw lines of an input with these numbers; one that is longer than is read at once is cut."""
        wanted: dict[int, list[int]] = {}
        for number in numbers:
            wanted.setdefault(self.front.place(number), []).append(number)
        found: dict[int, bytes] = {}
        gate = asyncio.Semaphore(_READS_AT_ONCE)

        async def read(place: int) -> None:
            block = self.front.block(place)
            async with gate:
                data = await self._blobs.part(
                    self._file.blob_key, block.start, min(block.end, block.start + _LONGEST_READ)
                )
            lines = data.split(b"\n")
            found.update({n: lines[n - block.number] for n in wanted[place] if n - block.number < len(lines)})

        await asyncio.gather(*[read(place) for place in wanted if place >= 0])
        return found


async def merged(*sources: AsyncIterator[NumberedLine]) -> AsyncIterator[NumberedLine]:
    """Lines of several files in one order."""
    heads = [await anext(source, None) for source in sources]
    while left := [(head[0], place) for place, head in enumerate(heads) if head is not None]:
        _, place = min(left)
        head = heads[place]
        assert head is not None
        yield head
        heads[place] = await anext(sources[place], None)
