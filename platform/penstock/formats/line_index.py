"""Line index: where the lines of a file are, in a small blob beside it that is read in parts.

A mark stands at each few hundred lines, with the groups of errors that follow it. Of a result file each line's number
is there, too, of an error file its group; of an input each custom_id's hash, in order. Layout: head, groups (JSON),
marks, fences, numbers, places of groups, ids.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock.domain.work.error_group import ErrorGroup

_MAGIC: Final = b"PSTLINE1"
_HEAD: Final = struct.Struct("<8sQQQQQ")
HEAD_BYTES: Final = _HEAD.size
_MARK: Final = np.dtype([("number", "<u4"), ("first", "<u4"), ("offset", "<u8"), ("groups", "<u8")])
_ID: Final = np.dtype([("hash", "<u8"), ("number", "<u4")])
_FENCE_EVERY: Final = 1_024
_MOST_FENCES_READ: Final = 4
NO_IDS: Final = np.empty(0, dtype=_ID)
RESULT_MARK_LINES, RESULT_MARK_BYTES = 256, 1024 * 1024
INPUT_MARK_LINES, INPUT_MARK_BYTES = 64, 128 * 1024


def id_hash(custom_id: str) -> bytes:
    """16 bytes that stand for a custom_id; the first 8 are in the index."""
    return hashlib.blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def ids_of(hashes: bytes | bytearray, numbers: Sequence[int]) -> NDArray[np.void]:
    """The sorted part of an index, of `id_hash`es and the numbers of their lines."""
    ids = np.empty(len(numbers), dtype=_ID)
    ids["hash"] = np.frombuffer(hashes, dtype=">u8").reshape(-1, 2)[:, 0]
    ids["number"] = numbers
    return ids[np.argsort(ids["hash"], kind="stable")]


class Marks:
    """Marks as they are set, while a file is read or written from its beginning."""

    def __init__(self, lines: int, bytes: int) -> None:
        self._most_lines = lines
        self._most_bytes = bytes
        self._numbers, self._firsts = array("I"), array("I")
        self._offsets, self._groups = array("Q"), array("Q")
        self._places = array("B")
        self._count = self._first = self._offset = 0

    def line(self, number: int, offset: int) -> None:
        """One more line, which begins at this offset."""
        if (
            not self._count
            or self._count - self._first >= self._most_lines
            or offset - self._offset >= self._most_bytes
        ):
            self._first, self._offset = self._count, offset
            self._numbers.append(number)
            self._firsts.append(self._count)
            self._offsets.append(offset)
            self._groups.append(0)
        self._count += 1

    def group(self, place: int) -> None:
        """The line that came last is of this group."""
        self._groups[-1] |= 1 << place
        self._places.append(place)

    def blob(
        self, size_bytes: int, *, numbers: array[int] | None = None, groups: Sequence[ErrorGroup] = (),
        ids: NDArray[np.void] = NO_IDS,
    ) -> bytes:  # fmt: skip
        """The index of the file, which has so many bytes."""
        marks = np.empty(len(self._numbers), dtype=_MARK)
        marks["number"], marks["first"] = self._numbers, self._firsts
        marks["offset"], marks["groups"] = self._offsets, self._groups
        words = msgspec.json.encode([one.as_json() for one in groups])
        numbered = array("I") if numbers is None else numbers
        head = _HEAD.pack(_MAGIC, size_bytes, len(words), len(marks), len(numbered), len(ids))
        fences = np.ascontiguousarray(ids["hash"][::_FENCE_EVERY])
        numbers_part = np.asarray(numbered, dtype="<u4").tobytes()
        front = head, words, marks.tobytes(), fences.tobytes()
        return b"".join((*front, numbers_part, self._places.tobytes(), ids.tobytes()))


@dataclass(frozen=True)
class Head:
    """How large the parts of an index are."""

    size_bytes: int
    """Of the file."""
    groups_bytes: int
    marks: int
    lines: int
    ids: int

    @property
    def places_at(self) -> int:
        """Where the places of the lines' groups begin."""
        return self.front_end + 4 * self.lines

    @property
    def ids_at(self) -> int:
        """Where the ids begin: only an index with groups has places of them."""
        return self.places_at + (self.lines if self.groups_bytes > len(b"[]") else 0)

    @property
    def fences(self) -> int:
        """Hashes that say where in the ids to look."""
        return -(-self.ids // _FENCE_EVERY)

    @property
    def front_end(self) -> int:
        """Where what is read first ends."""
        return HEAD_BYTES + self.groups_bytes + self.marks * _MARK.itemsize + self.fences * 8


def read_head(data: bytes) -> Head:
    """The head of an index; raise ValueError if it is none."""
    magic, *sizes = _HEAD.unpack(data)
    if magic != _MAGIC:
        raise ValueError("this is no line index")
    return Head(*sizes)


@dataclass(frozen=True)
class Block:
    """What stands between two marks: bytes of the file, and the places of its lines among all lines."""

    number: int
    start: int
    end: int
    first: int
    stop: int


class Front:
    """The front of an index: what is looked at to know what else to read."""

    def __init__(self, head: Head, data: bytes) -> None:
        """`data` is what stands between the head and `front_end`."""
        self.head = head
        marks_at = head.groups_bytes
        fences_at = marks_at + head.marks * _MARK.itemsize
        self.groups = [ErrorGroup.of_json(one) for one in msgspec.json.decode(data[:marks_at])]
        self._marks = np.frombuffer(data[marks_at:fences_at], dtype=_MARK)
        self._fences = np.frombuffer(data[fences_at:], dtype="<u8")

    def __len__(self) -> int:
        return len(self._marks)

    def place(self, number: int) -> int:
        """The block in which this line stands, if it does; -1 before the first."""
        return int(np.searchsorted(self._marks["number"], number, side="right")) - 1

    def block(self, place: int) -> Block:
        """One block."""
        mark, last = self._marks[place], place + 1 == len(self._marks)
        end = self.head.size_bytes if last else int(self._marks["offset"][place + 1])
        stop = self.head.lines if last else int(self._marks["first"][place + 1])
        return Block(int(mark["number"]), int(mark["offset"]), end, int(mark["first"]), stop)

    def next_with(self, place: int, mask: int | None) -> int | None:
        """The next block from this one on that has lines of one of these groups; None: of all."""
        if mask is None:
            return place if place < len(self._marks) else None
        found = np.flatnonzero(self._marks["groups"][place:] & np.uint64(mask))
        return None if not len(found) else place + int(found[0])

    def numbers_at(self, block: Block) -> tuple[int, int]:
        """Where in the index the numbers of its lines are."""
        return self.head.front_end + 4 * block.first, self.head.front_end + 4 * block.stop

    def places_of(self, block: Block) -> tuple[int, int]:
        """Where in the index the places of its lines' groups are, a byte each."""
        return self.head.places_at + block.first, self.head.places_at + block.stop

    def ids_at(self, custom_id: str) -> tuple[int, int]:
        """Where in the index a custom_id is, if it is there."""
        hash = np.uint64(_hash(custom_id))
        low = max(0, int(np.searchsorted(self._fences, hash, side="left")) - 1)
        high = int(np.searchsorted(self._fences, hash, side="right"))
        low, high = low * _FENCE_EVERY, min(high, low + _MOST_FENCES_READ) * _FENCE_EVERY
        at = self.head.ids_at
        return at + low * _ID.itemsize, at + min(max(low, high), self.head.ids) * _ID.itemsize


def read_numbers(data: bytes) -> list[int]:
    """What stands at `numbers_at`."""
    return [int(one) for one in np.frombuffer(data, dtype="<u4")]


def numbers_of(data: bytes, custom_id: str) -> list[int]:
    """The lines that may have this custom_id, of what stands at `ids_at`."""
    ids = np.frombuffer(data, dtype=_ID)
    return [int(one) for one in ids["number"][ids["hash"] == np.uint64(_hash(custom_id))]]


def _hash(custom_id: str) -> int:
    return int.from_bytes(id_hash(custom_id)[:8])
