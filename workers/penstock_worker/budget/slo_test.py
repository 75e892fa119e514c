"""The SLO test: whether 95 of 100 calls keep a limit, told from few samples and only when chance can't be the reason.

No distribution is assumed: samples are counted as within the limit or over it. If exactly 5 of 100 are over, the
number over among n is binomial, which says how surprising a count is:

    bad     so many over would come by chance less than once in 1,000 times (looked at again and again, so be strict);
            a limit that is missed by far is seen after a few samples
    good    so few over would come by chance less than once in 4 times: 27 samples with none over, 52 with one, …
    enough  after 200 samples and 90 steps without a verdict the limit lies close: up to 4 of 100 over is good, more
            is just bad

The numbers were chosen with tests/worker/plant.py, 2 to 8 calls/s: in the long run 4 to 4.5 of 100 are over, and the
budget stands at 0.93 to 0.98 of the best. With half the samples it is 0.8 to 0.95; with 1 call/s 5.5 of 100 are over.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

_OVER: Final = 0.05
_OVER_AT_THE_END: Final = 0.04
_BAD_CHANCE: Final = 0.001
_GOOD_CHANCE: Final = 0.25
_ENOUGH: Final = 200
_ENOUGH_STEPS: Final = 90
# Samples of one second meet the same engine steps and say nearly the same: a burst is not many witnesses.
_MOST_A_STEP: Final = 12
_LEAST_STEPS_BAD: Final = 2
_LEAST_STEPS_GOOD: Final = 5


class SloVerdict(StrEnum):
    """What the samples say so far."""

    OPEN = "open"
    GOOD = "good"
    JUST_BAD = "just_bad"
    BAD = "bad"


class SloTest:
    """Samples that were taken under the same conditions, against one limit in seconds."""

    def __init__(self, limit_seconds: float) -> None:
        self.limit_seconds = limit_seconds
        self.clear()

    def clear(self) -> None:
        """Conditions have changed."""
        self._count = self._over = self._steps = 0
        self._samples: deque[float] = deque(maxlen=_ENOUGH_STEPS * _MOST_A_STEP)

    def __len__(self) -> int:
        return self._count

    def add(self, samples: Sequence[float]) -> None:
        """What one control step brought; of many, some that lie evenly."""
        if not samples:
            return
        stride = math.ceil(len(samples) / _MOST_A_STEP)
        kept = samples[::stride]
        self._steps += 1
        self._count += len(kept)
        self._over += sum(sample > self.limit_seconds for sample in kept)
        self._samples.extend(kept)

    @property
    def p95(self) -> float:
        """The 95th percentile of what is here, in seconds; 0 without samples."""
        return p95(self._samples)

    @property
    def verdict(self) -> SloVerdict:
        """What can be said now."""
        count, over = self._count, self._over
        if self._steps >= _LEAST_STEPS_BAD and 1.0 - _binomial_cdf(over - 1, count) < _BAD_CHANCE:
            return SloVerdict.BAD
        if self._steps >= _LEAST_STEPS_GOOD and _binomial_cdf(over, count) < _GOOD_CHANCE:
            return SloVerdict.GOOD
        if count >= _ENOUGH and self._steps >= _ENOUGH_STEPS:
            return SloVerdict.GOOD if over <= _OVER_AT_THE_END * count else SloVerdict.JUST_BAD
        return SloVerdict.OPEN


def p95(samples: Sequence[float] | deque[float]) -> float:
    """The 95th percentile (nearest rank); 0 of nothing."""
    ordered = sorted(samples)
    return ordered[math.ceil(0.95 * len(ordered)) - 1] if ordered else 0.0


def _binomial_cdf(most: int, count: int) -> float:
    """The chance of at most so many over among so many, if each is over with 5 %."""
    if most < 0:
        return 0.0
    term = total = (1.0 - _OVER) ** count
    for over in range(1, min(most, count) + 1):
        term *= (count - over + 1) / over * _OVER / (1.0 - _OVER)
        total += term
    return min(1.0, total)
