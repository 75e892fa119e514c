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
    return Score(0, False, reason)


def left_out(reason: str) -> Score:
    """Nothing can be said."""
    return Score(None, False, reason)


def shown(value: Any) -> str:
    """A value as a reason shows it: short, on one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"
