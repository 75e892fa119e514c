"""Told lines: what is said of one output line without its answer: how it ended, what it used, why it failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock.domain.accounts.tokens import Usage
from penstock.domain.work.error_group import Failure
from penstock.formats import ended, output
from penstock.formats.answers import written_answer
from penstock.formats.failure import failure

_BROKEN: Final = Failure(0, "unknown", "This output line can't be read.")
_MOST_REASON: Final = 100


@dataclass(frozen=True, slots=True)
class ToldLine:
    """One line's end. Without a failure it is answered."""

    custom_id: str | None
    status: int | None
    failure: Failure | None
    usage: Usage
    finish_reason: str | None
    body: bytes = b"null"


def read(line: bytes) -> ToldLine:
    """What an output line says."""
    try:
        found = ended.read(line)
    except (ValueError, KeyError, RecursionError):
        return ToldLine(None, None, _BROKEN, output.NO_USAGE, None)
    if found.failed:
        return ToldLine(found.custom_id, found.status, failure(found), output.NO_USAGE, None, found.body)
    return ToldLine(found.custom_id, found.status, None, output.usage_of(found.body), _reason(found.body), found.body)


def _reason(body: bytes) -> str | None:
    """Why the engine stopped: a first choice's `finish_reason`, or a response's status."""
    try:
        answer = written_answer.read(body)
    except (ValueError, RecursionError):
        return None
    reason = answer.choices[0].finish_reason if answer.choices else answer.status
    return reason[:_MOST_REASON] if isinstance(reason, str) else None
