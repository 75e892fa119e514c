"""The guard: when a new version does so much worse than the others of its alias that its share is taken back.

Errors, empty answers and calls that were slower than promised are compared as shares, by a two-proportion z-test
(Fleiss, Levin, Paik: Statistical Methods for Rates and Proportions, 3.2). It is looked at again and again, so the bound
is far out: a version that is as good is accused in one look of 30,000.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from penstock.domain.api_errors import BadRequest

_Z: Final = 4.0
_LEAST: Final = 20


@dataclass(frozen=True)
class GuardTerms:
    """When a share is taken back."""

    least: int = 100
    """So many requests of the new version, and of the others, are seen first."""
    worse_percent: float = 2.0
    """So many percentage points worse it must be, beyond what chance explains."""

    @classmethod
    def of(cls, given: Mapping[str, float] | None) -> GuardTerms | None:
        """Read from a row or request; raises BadRequest."""
        if given is None:
            return None
        made = cls(int(given.get("least", cls.least)), float(given.get("worse_percent", cls.worse_percent)))
        if not _LEAST <= made.least <= 1_000_000 or not 0 <= made.worse_percent <= 100:
            message = f"A guard sees at least {_LEAST} requests, and worse_percent is from 0 to 100."
            raise BadRequest(message, param="guard")
        return made

    def as_json(self) -> dict[str, float]:
        """For a row."""
        return asdict(self)


@dataclass(frozen=True)
class Outcomes:
    """What became of requests, since the alias stands as it does."""

    lines: int = 0
    calls: int = 0
    errors: int = 0
    """Lines without an answer, and calls that ended in a 5xx."""
    empty: int = 0
    """Of lines."""
    slow: int = 0
    """Of calls: later than the time to first token that is promised."""

    def __add__(self, other: Outcomes) -> Outcomes:
        return Outcomes(*(mine + theirs for mine, theirs in zip(_values(self), _values(other), strict=True)))

    @property
    def requests(self) -> int:
        """All of them."""
        return self.lines + self.calls


def fault(new: Outcomes, others: Outcomes, terms: GuardTerms) -> str | None:
    """What the new version does worse, in words; None if nothing is, or too little was seen."""
    for what, bad, of, other_bad, other_of in (
        ("errors", new.errors, new.requests, others.errors, others.requests),
        ("empty answers", new.empty, new.lines, others.empty, others.lines),
        ("calls slower than promised", new.slow, new.calls, others.slow, others.calls),
    ):
        if min(of, other_of) >= terms.least and _is_worse(bad, of, other_bad, other_of, terms.worse_percent / 100):
            return f"{100 * bad / of:.1f} % {what} of {of}, against {100 * other_bad / other_of:.1f} % of {other_of}"
    return None


def _is_worse(bad: int, of: int, other_bad: int, other_of: int, by: float) -> bool:
    more = bad / of - other_bad / other_of
    pooled = (bad + other_bad) / (of + other_of)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / of + 1 / other_of))
    return more > by and more > _Z * spread


def _values(one: Outcomes) -> tuple[int, int, int, int, int]:
    return one.lines, one.calls, one.errors, one.empty, one.slow
