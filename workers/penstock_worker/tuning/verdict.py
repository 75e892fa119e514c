"""The verdict: whether the best point is faster than the base beyond what chance does, from runs in pairs.

Each pair is one fresh start of both, one after the other, in turns the one and the other first, so that what drifts
(a machine that warms up, a neighbour) meets both. What counts is the mean of the logarithms of their ratios, with
Student's t interval over the pairs. The point was chosen since it looked fastest, which flatters it: what it showed
while it was chosen does not count.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MOST_PAIRS: Final = 5
LEAST_GAIN: Final = 1.02
"""Less is not worth another version."""
_FEWEST_TO_GIVE_UP: Final = 3
# Student's t, two-sided 95 %, by pairs: 2 pairs are one degree of freedom.
_T: Final = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}


@dataclass(frozen=True)
class PairVerdict:
    """How many times as fast it is, with its 95 % interval (none from a single pair), and from how many pairs."""

    ratio: float
    low: float
    high: float
    pairs: int

    @property
    def is_faster(self) -> bool:
        """Beyond the noise, and enough to care."""
        return self.low > 1.0 and self.ratio >= LEAST_GAIN

    @property
    def is_clear(self) -> bool:
        """More pairs would not change what is recommended, or there are enough."""
        hopeless = self.pairs >= _FEWEST_TO_GIVE_UP and self.ratio < LEAST_GAIN
        return self.is_faster or self.high < LEAST_GAIN or hopeless or self.pairs >= MOST_PAIRS


def judge(pairs: Sequence[tuple[float, float]]) -> PairVerdict:
    """From tokens a second of base and point, in pairs; one at least."""
    logs = [math.log(point / base) for base, point in pairs]
    mean = statistics.fmean(logs)
    if len(logs) < 2:
        return PairVerdict(math.exp(mean), 0.0, math.inf, len(logs))
    margin = _T[min(len(logs), MOST_PAIRS)] * statistics.stdev(logs) / math.sqrt(len(logs))
    return PairVerdict(math.exp(mean), math.exp(mean - margin), math.exp(mean + margin), len(logs))
