"""Gzip is inflated as it comes, whatever the pieces, and never in a piece that is large."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.formats.gunzip import PIECE_BYTES, Gunzip


def inflate(data: bytes, step: int) -> tuple[bytes, int]:
    """What it stands for, and the largest piece."""
    gunzip, whole, largest = Gunzip(), bytearray(), 0
    for start in range(0, len(data), step):
        for piece in gunzip.feed(data[start : start + step]):
            whole += piece
            largest = max(largest, len(piece))
    gunzip.end()
    return bytes(whole), largest


@given(st.lists(st.binary(max_size=400), min_size=1, max_size=4), st.integers(1, 50))
def test_any_members_in_any_pieces_are_one_file(members: list[bytes], step: int) -> None:
    assert inflate(b"".join(map(gzip.compress, members)), step)[0] == b"".join(members)


@pytest.mark.parametrize("step", [1_000, 10**9])
def test_a_bomb_comes_in_small_pieces(step: int) -> None:
    whole, largest = inflate(gzip.compress(bytes(50_000_000)), step)
    assert (len(whole), largest <= PIECE_BYTES) == (50_000_000, True)


@pytest.mark.parametrize(
    "data",
    [b"\x1f\x8bnothing of it", gzip.compress(b"x" * 99)[:-1], gzip.compress(b"x") + b"y"],
    ids=["broken", "cut", "followed"],
)
def test_what_is_broken_or_cut_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        inflate(data, 7)


def test_nothing_is_nothing() -> None:
    assert inflate(b"", 1) == (b"", 0)
