"""Intervals: how sure a mean is, by resampling the lines (Efron's bootstrap, BCa) or, of yes and no, by Wilson's.

Scores are thousandths, so a million of them are a few thousand numbers and how often each came. To draw as many lines
again, with replacement, is to draw those counts from a multinomial: the same distribution, with memory and time that do
not grow with the lines.

BCa (Efron 1987, "Better bootstrap confidence intervals") and not the plain percentiles: differences of yes and no are
skewed where one run is nearly always right, and BCa corrects for that at no cost, since the jackknife of a mean is
known without doing it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from penstock.domain.evals.scorer import WHOLE

RESAMPLES: Final = 10_000
CONFIDENCE: Final = 0.95
SEED: Final = 20_231
"""Fixed: the same lines give the same interval, whenever it is asked for."""
_CELLS: Final = 2_000_000
"""Numbers that are in memory at once."""
_NORMAL: Final = NormalDist()


@dataclass(frozen=True)
class Interval:
    """A mean, and between what the true one is in 95 of 100 such data sets."""

    mean: float
    low: float
    high: float


def of_mean(counts: Mapping[int, int]) -> Interval:
    """Of the mean of scores: how often each came, in thousandths."""
    return _wilson(counts) if counts.keys() <= {0, WHOLE} else bootstrap(counts)


def bootstrap(counts: Mapping[int, int], *, seed: int = SEED, resamples: int = RESAMPLES) -> Interval:
    """The same by resampling; raise ValueError if there are none."""
    import numpy as np

    values = sorted(value for value, count in counts.items() if count)
    lines = sum(counts[value] for value in values)
    if not lines:
        raise ValueError("there is nothing to resample")
    mean = sum(value * counts[value] for value in values) / lines
    spread = sum(counts[value] * (value - mean) ** 2 for value in values)
    if spread == 0:
        return Interval(mean / WHOLE, mean / WHOLE, mean / WHOLE)
    chances = np.array([counts[value] for value in values], dtype=float) / lines
    numbers = np.array(values, dtype=float)
    draws, rng = [], np.random.default_rng(seed)
    for at in range(0, resamples, most := max(1, _CELLS // len(values))):
        some = min(most, resamples - at)
        draws.append(rng.multinomial(lines, chances, size=some) @ numbers / lines)
    means = np.sort(np.concatenate(draws))
    low, high = _bca(counts, values, mean, spread, means)
    return Interval(mean / WHOLE, low / WHOLE, high / WHOLE)


def _bca(
    counts: Mapping[int, int], values: list[int], mean: float, spread: float, means: object
) -> tuple[float, float]:
    import numpy as np

    sample = np.asarray(means)
    size, near = len(sample), abs(mean) * 1e-12 + 1e-9
    below = int((sample < mean - near).sum())
    equal = int((np.abs(sample - mean) <= near).sum())
    share = min(max((below + equal / 2) / size, 1 / size), 1 - 1 / size)
    bias = _NORMAL.inv_cdf(share)
    skew = sum(counts[value] * (value - mean) ** 3 for value in values) / (6 * spread**1.5)
    ends = []
    for part in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2):
        z = bias + _NORMAL.inv_cdf(part)
        moved = _NORMAL.cdf(bias + z / (1 - skew * z)) if abs(skew * z) < 1 else part
        ends.append(float(np.quantile(sample, moved)))
    return ends[0], ends[1]


def _wilson(counts: Mapping[int, int]) -> Interval:
    """Wilson's score interval (1927): it does not become a point where all lines are right."""
    lines, right = sum(counts.values()), counts.get(WHOLE, 0)
    if not lines:
        raise ValueError("there is nothing to measure")
    z = _NORMAL.inv_cdf((1 + CONFIDENCE) / 2)
    share = right / lines
    middle = (share + z * z / (2 * lines)) / (1 + z * z / lines)
    half = z / (1 + z * z / lines) * math.sqrt(share * (1 - share) / lines + z * z / (4 * lines * lines))
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))
