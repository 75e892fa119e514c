"""Segments: answers of a slice, to be recorded and as they were recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.domain.accounts.tokens import Usage
from penstock.domain.work.error_group import ErrorGroup


@dataclass(frozen=True)
class Segment:
    """An accepted piece of results: where its bytes are, and which lines they hold in that order."""

    id: int
    slice: int
    blob_key: str | None
    data: bytes | None
    bytes: int
    lines: list[int]
    failed_lines: frozenset[int]


@dataclass(frozen=True)
class Piece:
    """Answers of one slice, to be recorded under its lease as its segment number `seq`."""

    slice: int
    lease: int
    seq: int
    lines: list[int]
    failed_lines: list[int]
    empty_lines: list[int]
    usage: Usage
    data_bytes: int
    gpu_microseconds: int = 0
    blob_key: str | None = None
    data: bytes | None = None
    errors: Sequence[ErrorGroup] = ()
    """How the failed ones failed."""
