"""Failures: why an output line failed, in one status, one code and one message, and how many failed alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from penstock.domain.work.error_group import MOST_GROUPS, OTHER, ErrorGroup, Failure
from penstock.formats import ended
from penstock.formats.ended import EndedLine

_MOST_CODE: Final = 100
_MOST_MESSAGE: Final = 300
_UNKNOWN: Final = "unknown"
_TAILS_KEPT: Final = 256
_LONGEST_TAIL: Final = 1_024
_RESPONSE: Final = b',"response":'


class _Refusal(msgspec.Struct):
    error: Any = None
    code: Any = None
    type: Any = None
    message: Any = None
    detail: Any = None


_read_refusal = msgspec.json.Decoder(_Refusal).decode


def failure(line: EndedLine) -> Failure:
    """Why a line failed. A code of an engine that only repeats its status gives way to the error's type."""
    if line.status is None:
        return Failure(0, _words(line.code, _MOST_CODE) or _UNKNOWN, _words(line.message, _MOST_MESSAGE))
    try:
        said = _read_refusal(line.body)
    except (msgspec.DecodeError, RecursionError):
        return Failure(line.status, _UNKNOWN, "")
    error = said.error if isinstance(said.error, dict) else {}
    code, kind = error.get("code", said.code), error.get("type", said.type)
    word = code if isinstance(code, str) and code else kind if isinstance(kind, str) and kind else code
    message = error.get("message") or said.message or said.detail or said.error
    return Failure(line.status, _words(word, _MOST_CODE) or _UNKNOWN, _words(message, _MOST_MESSAGE))


def _words(value: Any, most: int) -> str:
    """At most so many characters that any database keeps; an answer may hold a NUL, and half a surrogate pair."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else str(value)
    return text[:most].replace("\0", "").encode("utf-8", "replace").decode()


@dataclass(slots=True)
class _Count:
    failure: Failure
    lines: int
    first_line: int


class FailureCounts:
    """Failed lines as they come by, in any order; lines that end in the same bytes are read once."""

    def __init__(self) -> None:
        self._counts: list[_Count] = []
        self._places: dict[tuple[int, str], int] = {}
        self._tails: dict[bytes, tuple[int, Failure]] = {}

    def add(self, number: int, line: bytes) -> int:
        """Count an output line that failed; the place of its group, below `MOST_GROUPS`."""
        tail = line.partition(_RESPONSE)[2]
        place, why = self._tails.get(tail) or self._read(line, tail)
        count = self._counts[place]
        count.lines += 1
        if number < count.first_line:
            count.first_line = number
            if count.failure.code != OTHER:
                count.failure = why
        return place

    def _read(self, line: bytes, tail: bytes) -> tuple[int, Failure]:
        try:
            why = failure(ended.read(line))
        except (ValueError, KeyError, RecursionError):
            why = Failure(0, _UNKNOWN, "")
        key = why.status, why.code
        if key not in self._places:
            if len(self._counts) == MOST_GROUPS - 1:
                key, why = (0, OTHER), Failure(0, OTHER, "Lines of further codes.")
            if key not in self._places:
                self._places[key] = len(self._counts)
                self._counts.append(_Count(why, 0, 2**31 - 1))
        found = self._places[key], why
        if len(tail) <= _LONGEST_TAIL and len(self._tails) < _TAILS_KEPT:
            self._tails[tail] = found
        return found

    @property
    def groups(self) -> list[ErrorGroup]:
        """By place."""
        return [
            ErrorGroup(one.failure.status, one.failure.code, one.lines, one.first_line, one.failure.message)
            for one in self._counts
        ]


def counted(failed: Sequence[tuple[int, bytes]]) -> list[ErrorGroup]:
    """The groups of these lines, each with its number."""
    counts = FailureCounts()
    for number, line in failed:
        counts.add(number, line)
    return counts.groups
