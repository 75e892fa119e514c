"""Batch ends: what is counted, for metrics, of batches and jobs that have ended."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from penstock.domain.counted import HISTOGRAMS

_PICOUNITS_A_NANOUNIT = 1000
_LEAST_SECONDS = 10.0


@dataclass(frozen=True)
class EndedBatch:
    """One batch or job that ended; a time of None never came."""

    kind: str
    lane: str
    state: str
    late: bool
    """Its deadline passed before."""
    seconds: float
    """From its creation to its end."""
    validating_seconds: float | None
    """From its creation until its lines could be asked."""
    first_answer_seconds: float | None
    """From then until the first answers were recorded; None of a job whose answers are in rows."""
    finalizing_seconds: float | None
    """From its last answer to its end: writing its files."""
    cost: Decimal
    """In picounits."""
    expected_seconds: float | None = None
    """From when its end was first expected until then; of one that completed, and that nobody steered since."""
    taken_seconds: float | None = None
    """From when its end was first expected until its last answer."""

    @property
    def eta_error_ratio(self) -> float | None:
        """What it took over what was expected: 1 was right, 2 took twice as long; None where too little was expected.

        Of some seconds the ratio would tell of the time between two looks, and not of what is known of the work.
        """
        if self.expected_seconds is None or self.taken_seconds is None or self.expected_seconds < _LEAST_SECONDS:
            return None
        return max(0.0, self.taken_seconds) / self.expected_seconds


def counted(ends: Sequence[EndedBatch]) -> Counter[str]:
    """What is added to the counts for them, by name; see domain/counted.py."""
    found = Counter[str]()
    for end in ends:
        found[f"batches_ended/{end.kind}/{end.lane}/{end.state}"] += 1
        found[f"batches_late/{end.lane}"] += end.late
        found[f"cost/{end.lane}"] += round(end.cost / _PICOUNITS_A_NANOUNIT)
        for name, histogram in HISTOGRAMS.items():
            if (value := getattr(end, histogram.field)) is not None:
                bound = bisect_left(histogram.bounds, value)
                found[f"{name}/{end.lane}/{histogram.names[bound]}"] += 1
                found[f"{name}/{end.lane}/sum"] += round(value * 1000)
    return +found
