"""Pairs: two runs' scores of the same lines, and whether the difference is more than chance."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from penstock.domain.evals.comparison import ComparisonVerdict
from penstock.domain.evals.scorer import WHOLE
from penstock.scoring.bootstrap import CONFIDENCE, RESAMPLES, bootstrap

LEAST_DIFFERING: Final = 6
"""Of fewer lines that differ nothing follows: even if all go one way, chance does that once in sixteen times."""
_DIGITS: Final = 6


@dataclass
class Pairs:
    """One scorer's scores in both runs. Memory does not grow with the lines."""

    differences: Counter[int] = field(default_factory=Counter)
    """Candidate less baseline, in thousandths."""
    baseline_sum: int = 0
    candidate_sum: int = 0

    def add(self, baseline: int, candidate: int) -> None:
        """One line that both have scored."""
        self.differences[candidate - baseline] += 1
        self.baseline_sum += baseline
        self.candidate_sum += candidate

    @property
    def lines(self) -> int:
        """How many."""
        return self.differences.total()

    def as_json(self, name: str) -> dict[str, Any]:
        """What there is to say of this scorer."""
        lines, found = self.lines, self.differences
        better = sum(count for difference, count in found.items() if difference > 0)
        worse = sum(count for difference, count in found.items() if difference < 0)
        told: dict[str, Any] = {"name": name, "lines": lines, "better": better, "worse": worse, "same": found[0]}
        if not lines:
            empty = dict.fromkeys(("baseline_mean", "candidate_mean", "difference", "low", "high"))
            return told | empty | {"verdict": str(ComparisonVerdict.NOT_SHOWN)}
        interval = bootstrap(found)
        return told | {
            "baseline_mean": round(self.baseline_sum / lines / WHOLE, _DIGITS),
            "candidate_mean": round(self.candidate_sum / lines / WHOLE, _DIGITS),
            "difference": round(interval.mean, _DIGITS),
            "low": round(interval.low, _DIGITS),
            "high": round(interval.high, _DIGITS),
            "verdict": str(verdict(interval.low, interval.high, better + worse)),
        }


def verdict(low: float, high: float, differing: int) -> ComparisonVerdict:
    """What the interval of the difference says."""
    if differing < LEAST_DIFFERING or low <= 0 <= high:
        return ComparisonVerdict.NOT_SHOWN
    return ComparisonVerdict.BETTER if low > 0 else ComparisonVerdict.WORSE


METHOD: Final = {"confidence": CONFIDENCE, "resamples": RESAMPLES, "method": "bca"}
