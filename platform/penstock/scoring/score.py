"""Scores: what one scorer says of one answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from penstock.domain.evals.scorer import WHOLE

_MOST_CHARACTERS: Final = 80


@dataclass(frozen=True, slots=True)
class Score:
    """In thousandths; without one (`milli` None) the line is left out of the mean, and the reason says why."""

    milli: int | None
    passed: bool = False
    reason: str | None = None


PASSED: Final = Score(WHOLE, True)


def missed(reason: str) -> Score:
    """No point, for this reason."""
    return Score(0, False, _told(reason))


def left_out(reason: str) -> Score:
    """Nothing can be said."""
    return Score(None, False, _told(reason))


def _told(reason: str) -> str:
    """Half a surrogate pair, which a model may answer, can't be written into a file."""
    return reason.encode("utf-8", "backslashreplace").decode()


def shown(value: Any) -> str:
    """A value as a reason shows it: short, on one line."""
    try:
        text = " ".join(repr(value).split())
    except (RecursionError, ValueError):  # too deep, or a number of too many digits
        return "…"
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"
