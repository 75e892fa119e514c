"""Answer parts: where the bytes of a part of a batch's answers are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class AnswerPart:
    """Answers of one segment: those from the `first` on, counted from 0, and before `stop`."""

    blob_key: str
    bytes: int
    first: int
    stop: int


@dataclass(frozen=True)
class UnansweredPart:
    """The same of one slice's lines that have no answer; `recorded` others of it have one."""

    slice: int
    plan_offset: int
    plan_bytes: int
    recorded: int
    first: int
    stop: int


@dataclass(frozen=True)
class AnswerOrder:
    """A part of a batch's recorded answers, in the order in which they were accepted."""

    lines: int
    """Of all its slices."""
    recorded: int
    """Of those; more may come while it is open."""
    kept: int
    """Of those, in segments that are there: fewer once a sweep or a deletion was here."""
    settled: int
    """Of those, before which nothing can appear any more."""
    parts: Sequence[AnswerPart]
