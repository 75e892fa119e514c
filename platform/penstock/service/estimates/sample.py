"""Samples: some lines of a file, read in small ranges, with what each stands for; see `accounts/batch_estimate.py`.

The points are drawn from a seed, one in each of so many equal parts of the file: the same file gives the same sample.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from penstock.blobs.store import Blobs
from penstock.formats import input as lines

POINTS: Final = 128
_WHOLE_BYTES: Final = 4 * 1024 * 1024
"""A file of at most this size is read whole, and its lines are counted."""
_STEP_BYTES: Final = 16 * 1024
_MOST_KEPT_BYTES: Final = 128 * 1024
"""A longer line is measured and not looked at."""
MOST_BYTES: Final = POINTS * _MOST_KEPT_BYTES
"""What a sample may hold."""
_AT_ONCE: Final = 8

Read = Callable[[int, int], bytes]
"""The bytes from, to."""


@dataclass(frozen=True)
class Sampled:
    """One line of the sample. `weight`: how many lines of the file it stands for."""

    line_bytes: int
    weight: float
    line: bytes | None
    """Without its end; None if it is too long to be kept, empty if it is blank."""


@dataclass(frozen=True)
class Sample:
    """Lines of a file; `whole` if those are all."""

    lines: tuple[Sampled, ...]
    count: float
    """How many lines with content the file has."""
    counted: bool
    """`count` is exact."""
    whole: bool


def of_lines(found: Sequence[bytes]) -> Sample:
    """Some lines, each for itself; many of them as a file of theirs is."""
    if len(found) <= POINTS:
        return Sample(tuple(Sampled(len(line) + 1, 1.0, line) for line in found), len(found), True, True)
    return _of_bytes(b"\n".join(found), seed=len(found))


def of_blob(blobs: Blobs, key: str, size: int, seed: int) -> Sample:
    """Lines of a blob of this size; raise Unreadable."""
    if size <= _WHOLE_BYTES:
        return _of_bytes(blobs.range(key, 0, size) if size else b"", seed)
    found = _at_points(lambda start, end: blobs.range(key, start, end - start), size, seed)
    return Sample(tuple(found), sum(one.weight for one in found if one.line != b""), False, False)


def _of_bytes(data: bytes, seed: int) -> Sample:
    tidy = [line for number, raw in enumerate(data.split(b"\n"), 1) if (line := lines.tidy(raw, number))]
    if len(tidy) <= POINTS:
        return Sample(tuple(Sampled(len(line) + 1, 1.0, _kept(line)) for line in tidy), len(tidy), True, True)
    found = _at_points(lambda start, end: data[start:end], len(data), seed)
    return Sample(tuple(found), len(tidy), True, False)


def _at_points(read: Read, size: int, seed: int) -> list[Sampled]:
    chance = random.Random(seed)
    part = size / POINTS
    points = [min(size - 1, int((place + chance.random()) * part)) for place in range(POINTS)]
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="sample") as pool:
        return list(pool.map(lambda point: _line_at(read, size, point), points))


def _line_at(read: Read, size: int, point: int) -> Sampled:
    """The line that holds this byte; a line's end belongs to it."""
    low, high = max(0, point - _STEP_BYTES), min(size, point + _STEP_BYTES)
    window = read(low, high)
    start, end = _last(read, window, low, point), _next(read, window, low, point, size)
    kept = None
    if end - start <= _MOST_KEPT_BYTES:
        inside = low <= start and end <= high
        raw = window[start - low : end - low] if inside else read(start, end)
        kept = lines.tidy(raw, 1 if start == 0 else 2)
    return Sampled(end - start, size / POINTS / (end - start), kept)


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


def _kept(line: bytes) -> bytes | None:
    return line if len(line) <= _MOST_KEPT_BYTES else None
