"""Samples: fair to lines of any length, the same for the same seed, and read in small ranges."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from service.desk import request

from penstock.blobs.store import Blobs
from penstock.service.estimates import sample
from penstock.service.estimates.sample import Looking, Sample

MIB = 1024 * 1024
WHOLE = Looking(lambda line: line, 8 * MIB)


class Counting(Blobs):
    """Counts the bytes that are read."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.read_bytes = 0
        self.longest = 0

    def range(self, key: str, offset: int, length: int) -> bytes:
        self.read_bytes += length
        self.longest = max(self.longest, length)
        return super().range(key, offset, length)


@pytest.fixture
def blobs(tmp_path: Path) -> Counting:
    return Counting(f"file://{tmp_path}/blobs")


def put(blobs: Counting, data: bytes) -> tuple[str, int]:
    blobs.put("acme/files/x", data)
    return "acme/files/x", len(data)


def mixed() -> bytes:
    """Of ten lines nine are short and one is long: most bytes are in the few long ones."""
    return b"".join(request(f"q{n}", pad="x" * (9_000 if n % 10 == 0 else 40)) + b"\n" for n in range(6_000))


def test_short_and_long_lines_count_as_often_as_there_are_of_them(blobs: Counting) -> None:
    key, size = put(blobs, mixed())
    assert size > 4 * MIB
    samples = [sample.of_blob(blobs, key, size, seed, WHOLE) for seed in range(40)]
    counts = [one.count for one in samples]
    assert statistics.mean(counts) == pytest.approx(6_000, rel=0.05)
    long = [sum(one.weight for one in found.lines if one.line_bytes > 9_000) for found in samples]
    assert statistics.mean(long) == pytest.approx(600, rel=0.03)
    # Without weights nine of ten would be long.
    assert statistics.mean(one.line_bytes > 9_000 for one in samples[0].lines) > 0.8
    total_bytes = [sum(one.weight * one.line_bytes for one in found.lines) for found in samples]
    assert total_bytes == pytest.approx([size] * 40)


def test_the_same_seed_is_the_same_sample_and_little_is_read(blobs: Counting) -> None:
    key, size = put(blobs, mixed() * 4)
    one, again, other = (sample.of_blob(blobs, key, size, seed, WHOLE) for seed in (1, 1, 2))
    assert one == again != other
    assert (one.counted, one.whole) == (False, False)
    assert len(one.lines) == sample.POINTS
    assert blobs.longest <= 64 * 1024
    assert blobs.read_bytes < 3 * sample.POINTS * 48 * 1024


def test_a_small_file_is_counted_and_a_tiny_one_is_looked_at_whole(blobs: Counting) -> None:
    lines = [request(f"q{n}") for n in range(1_000)]
    key, size = put(blobs, b"\xef\xbb\xbf" + b"\r\n\r\n".join(lines))
    found = sample.of_blob(blobs, key, size, 1, WHOLE)
    assert (found.count, found.counted, found.whole) == (1_000, True, False)
    assert {one.seen for one in found.lines} <= {*lines, None}
    few = sample.of_lines(lines[:50], WHOLE)
    assert [one.seen for one in few.lines] == lines[:50]
    assert {one.weight for one in few.lines} == {1.0}
    assert (few.count, few.counted, few.whole) == (50, True, True)
    assert sample.of_blob(blobs, "none", 0, 1, WHOLE) == Sample((), 0, True, True)


def test_every_line_is_looked_at_however_long_and_once_and_only_what_no_batch_takes_is_not_read(
    blobs: Counting,
) -> None:
    too_long, long, short = b"x" * (5 * MIB), request("b", pad="y" * MIB), request("a")
    key, size = put(blobs, b"\n".join([too_long, short, long]))
    looked: list[int | None] = []

    def look(line: bytes | None) -> int:
        looked.append(None if line is None else len(line))
        return 0 if line is None else len(line)

    found = sample.of_blob(blobs, key, size, 1, Looking(look, 4 * MIB))
    seen = {(one.line_bytes, one.seen) for one in found.lines}
    assert seen - {(len(short) + 1, len(short))} == {(5 * MIB + 1, 0), (len(long), len(long))}
    assert looked.count(len(long)) <= 3, "128 points meet it some twenty times"
    assert blobs.longest == len(long)


def test_a_line_of_a_small_file_is_looked_at_however_long_too() -> None:
    found = sample.of_lines([b"x" * 300_000, b"y"], Looking(lambda line: line and len(line), 400_000))
    assert [one.seen for one in found.lines] == [300_000, 1]
    refused = sample.of_lines([b"x" * 300_000, b"y"], Looking(lambda line: line, 200_000))
    assert [(one.line_bytes, one.seen) for one in refused.lines] == [(300_001, None), (2, b"y")]
