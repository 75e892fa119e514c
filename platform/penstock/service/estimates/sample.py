"""Samples: some lines of a file, read in small ranges, with what each stands for; see `accounts/batch_estimate.py`.

The points are drawn from a seed, one in each of so many equal parts of the file: the same file gives the same sample.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from threading import Lock
from typing import Final, Generic, TypeVar

from penstock.blobs.store import Blobs
from penstock.formats import input as lines

POINTS: Final = 128
_WHOLE_BYTES: Final = 4 * 1024 * 1024
"""A file of at most this size is read whole, and its lines are counted."""
_STEP_BYTES: Final = 16 * 1024
MOST_KEPT_BYTES: Final = 128 * 1024
"""What is seen of a longer line is kept, and not the line."""
MOST_BYTES: Final = POINTS * MOST_KEPT_BYTES
"""What a sample may hold, beside the one longer line that it looks at just now."""
_AT_ONCE: Final = 8

Read = Callable[[int, int], bytes]
"""The bytes from, to."""

Seen = TypeVar("Seen")
Look = Callable[[bytes | None], Seen]
"""What is seen in a tidy line with content, however long; None is one that is longer than a batch takes."""


@dataclass(frozen=True)
class Sampled(Generic[Seen]):
    """One line of the sample. `weight`: how many lines of the file it stands for."""

    line_bytes: int
    weight: float
    seen: Seen | None
    """None if the line is blank."""


@dataclass(frozen=True)
class Sample(Generic[Seen]):
    """Lines of a file; `whole` if those are all."""

    lines: tuple[Sampled[Seen], ...]
    count: float
    """How many lines with content the file has."""
    counted: bool
    """`count` is exact."""
    whole: bool


@dataclass(frozen=True)
class Looking(Generic[Seen]):
    """How lines are looked at, and how long one may be."""

    look: Look[Seen]
    most_line_bytes: int

    def at(self, line: bytes) -> Seen:
        """What is seen in a tidy line."""
        return self.look(line if len(line) <= self.most_line_bytes else None)


def of_lines(found: Sequence[bytes], looking: Looking[Seen]) -> Sample[Seen]:
    """Some lines, each for itself; many of them as a file of theirs is."""
    if len(found) <= POINTS:
        return _of_all(found, looking)
    return _of_bytes(b"\n".join(found), len(found), looking)


def of_blob(blobs: Blobs, key: str, size: int, seed: int, looking: Looking[Seen]) -> Sample[Seen]:
    """Lines of a blob of this size; raise Unreadable."""
    if size <= _WHOLE_BYTES:
        return _of_bytes(blobs.range(key, 0, size) if size else b"", seed, looking)
    found = _at_points(lambda start, end: blobs.range(key, start, end - start), size, seed, looking)
    return Sample(tuple(found), sum(one.weight for one in found if one.seen is not None), False, False)


def _of_bytes(data: bytes, seed: int, looking: Looking[Seen]) -> Sample[Seen]:
    tidy = [line for number, raw in enumerate(data.split(b"\n"), 1) if (line := lines.tidy(raw, number))]
    if len(tidy) <= POINTS:
        return _of_all(tidy, looking)
    found = _at_points(lambda start, end: data[start:end], len(data), seed, looking)
    return Sample(tuple(found), len(tidy), True, False)


def _of_all(found: Sequence[bytes], looking: Looking[Seen]) -> Sample[Seen]:
    return Sample(tuple(Sampled(len(line) + 1, 1.0, looking.at(line)) for line in found), len(found), True, True)


def _at_points(read: Read, size: int, seed: int, looking: Looking[Seen]) -> list[Sampled[Seen]]:
    chance = random.Random(seed)
    part = size / POINTS
    points = [min(size - 1, int((place + chance.random()) * part)) for place in range(POINTS)]
    each = POINTS // _AT_ONCE
    one_long = Lock()
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="sample") as pool:
        stretches = (points[first : first + each] for first in range(0, POINTS, each))
        found = pool.map(lambda some: list(_along(read, size, some, looking, one_long)), stretches)
        return list(chain.from_iterable(found))


def _along(
    read: Read, size: int, points: Sequence[int], looking: Looking[Seen], one_long: Lock
) -> Iterator[Sampled[Seen]]:
    """The lines that hold these bytes, in order. A line with several of them is looked at once, a long one alone."""
    start = end = 0
    seen: Seen | None = None
    for point in points:
        if not start <= point < end:
            low, high = max(0, point - _STEP_BYTES), min(size, point + _STEP_BYTES)
            window = read(low, high)
            start, end = _last(read, window, low, point), _next(read, window, low, point, size)
            if low <= start and end <= high:
                seen = _seen(window[start - low : end - low], start, looking)
            elif end - start > looking.most_line_bytes + len(lines.BOM) + 2:
                seen = looking.look(None)
            elif end - start <= MOST_KEPT_BYTES:
                seen = _seen(read(start, end), start, looking)
            else:
                with one_long:
                    seen = _seen(read(start, end), start, looking)
        yield Sampled(end - start, size / POINTS / (end - start), seen)


def _seen(raw: bytes, start: int, looking: Looking[Seen]) -> Seen | None:
    """A line's end belongs to it, and a BOM to the first; None if nothing else does."""
    line = lines.tidy(raw, 1 if start == 0 else 2)
    return looking.at(line) if line else None


def _last(read: Read, window: bytes, low: int, point: int) -> int:
    """Where the line begins: after the last line end before this byte."""
    found = window.rfind(b"\n", 0, point - low)
    while found < 0 and low > 0:
        low, high = max(0, low - 8 * _STEP_BYTES), low
        found = read(low, high).rfind(b"\n")
    return low + found + 1 if found >= 0 else 0


def _next(read: Read, window: bytes, low: int, point: int, size: int) -> int:
    """Where the line ends: after the first line end from this byte on."""
    found, high = window.find(b"\n", point - low), low + len(window)
    while found < 0 and high < size:
        low, high = high, min(size, high + 8 * _STEP_BYTES)
        found = read(low, high).find(b"\n")
    return low + found + 1 if found >= 0 else size
