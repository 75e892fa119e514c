"""Tallies: what one scorer found over all lines of a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from penstock.domain.evals.scorer import Scorer
from penstock.scoring.bootstrap import of_mean
from penstock.scoring.score import Score

_DIGITS: Final = 6


@dataclass
class ScoreTally:
    """Memory does not grow with the lines: scores are thousandths, and counted."""

    scorer: Scorer
    scores: Counter[int] = field(default_factory=Counter)
    passed: int = 0
    errors: int = 0

    def add(self, score: Score) -> None:
        """One line more."""
        if score.milli is None:
            self.errors += 1
            return
        self.scores[score.milli] += 1
        self.passed += score.passed

    def as_json(self) -> dict[str, Any]:
        """Mean with its interval, and how many lines passed, failed, or could not be scored."""
        lines = self.scores.total()
        found = of_mean(self.scores) if lines else None
        return {
            "name": self.scorer.name,
            "type": str(self.scorer.kind),
            "lines": lines,
            "mean": None if found is None else round(found.mean, _DIGITS),
            "low": None if found is None else round(found.low, _DIGITS),
            "high": None if found is None else round(found.high, _DIGITS),
            "passed": self.passed,
            "failed": lines - self.passed,
            "errors": self.errors,
        }
