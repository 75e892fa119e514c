"""Member answers: what the members of one fold recorded, copied to scratch, so that memory is some bytes a line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.blobs.store import Blobs
from penstock.domain.work.segment import Segment
from penstock.formats import plan


@dataclass(frozen=True)
class MemberAnswers:
    """Output lines of members, by line and by the member's place."""

    _file: int
    _places: dict[tuple[int, int], tuple[int, int]]

    def of(self, number: int, place: int) -> bytes | None:
        """What this member said of this line."""
        at = self._places.get((number, place))
        return None if at is None else os.pread(self._file, at[1], at[0])

    def all(self) -> Iterator[tuple[int, bytes]]:
        """Each member's place and what it said: line by line, and of one line in the members' order."""
        for (_, place), (offset, length) in sorted(self._places.items()):
            yield place, os.pread(self._file, length, offset)


@contextmanager
def fetched(pieces: Iterable[tuple[int, Segment]], blobs: Blobs, path: Path) -> Iterator[MemberAnswers]:
    """Copy segments, each with its member's place, to this file; raises Unreadable."""
    places: dict[tuple[int, int], tuple[int, int]] = {}
    offset = 0
    with path.open("w+b") as file:
        for place, piece in pieces:
            data = piece.data if piece.data is not None else blobs.read(piece.blob_key or "")
            for number, line in plan.unframe(data):
                if (number, place) not in places:
                    places[number, place] = offset, len(line)
                    offset += file.write(line)
        file.flush()
        yield MemberAnswers(file.fileno(), places)
