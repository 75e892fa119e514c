"""Findings: what a look at one thing says, in one line, and what mends it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_MOST_CHARACTERS: Final = 300
_SECRET: Final = re.compile(r"://[^/@\s]*@")


class FindingVerdict(StrEnum):
    """How it stands; only `failed` stops work."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """One line about one thing."""

    name: str
    verdict: FindingVerdict
    said: str
    mend: str = ""
    """What to do; empty where nothing is."""


Look = Callable[[], Iterable[Finding]]
"""Looks at something; several lines may come of it."""


def ok(name: str, said: str) -> Finding:
    """It is as it must be."""
    return Finding(name, FindingVerdict.OK, said)


def warning(name: str, said: str, mend: str) -> Finding:
    """Work goes on, with less than there could be."""
    return Finding(name, FindingVerdict.WARNING, said, mend)


def failed(name: str, said: str, mend: str) -> Finding:
    """It stops work."""
    return Finding(name, FindingVerdict.FAILED, said, mend)


def skipped(name: str, why: str) -> Finding:
    """It was not looked at."""
    return Finding(name, FindingVerdict.SKIPPED, why)


def words(error: BaseException) -> str:
    """An error as one line, without the user and password of an address in it."""
    first = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return _SECRET.sub("://…@", first)[:_MOST_CHARACTERS].rstrip(". ")
