"""Paired repeats: what was measured side by side, as medians with the interval that chance leaves them.

Intervals are percentile bootstraps over the repeats (Efron, Tibshirani: "An Introduction to the Bootstrap", 1993).
With few repeats they are no narrower than the repeats themselves, which is what they should say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

RESAMPLES: Final = 2_000
CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class Estimate:
    """A median, and between which bounds it lies with 95 % confidence; `repeats` is what it rests on."""

    value: float
    low: float
    high: float
    repeats: int

    def text(self, digits: int = 1, unit: str = "") -> str:
        """`12.3 [11.9, 12.8] ms`."""
        shown = f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"
        return f"{shown} {unit}".rstrip()

    def scaled(self, factor: float) -> Estimate:
        """The same in another unit."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor, self.repeats)

    def json(self) -> dict[str, Any]:
        """Rounded for a file."""
        return {name: value if name == "repeats" else round(value, 6) for name, value in asdict(self).items()}


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear between the two nearest values; NaN of none."""
    return float(np.percentile(values, percent)) if len(values) else float("nan")


def median(values: Sequence[float]) -> Estimate:
    """The median and its interval."""
    return _bootstrapped(np.asarray(values, float), lambda rows: np.median(rows, axis=-1))


def differences(pairs: Sequence[tuple[float, float]]) -> Estimate:
    """The median of second minus first."""
    return median([second - first for first, second in pairs])


def ratios(pairs: Sequence[tuple[float, float]]) -> Estimate:
    """The median of second over first; pairs without a first are left out."""
    return median([second / first for first, second in pairs if first])


def ratio_of_medians(above: Sequence[float], below: Sequence[float], seed: int = 1) -> Estimate:
    """One median over another, where the two were not measured in pairs."""
    if not len(above) or not len(below):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    rng = np.random.default_rng(seed)

    def medians(values: Sequence[float]) -> np.ndarray:
        array = np.asarray(values, float)
        return np.asarray(np.median(array[rng.integers(len(array), size=(RESAMPLES, len(array)))], axis=1))

    drawn = medians(above) / medians(below)
    value = float(np.median(above) / np.median(below))
    return _between(value, drawn, min(len(above), len(below)))


def _bootstrapped(values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 1) -> Estimate:
    if not len(values):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    rng = np.random.default_rng(seed)
    drawn = statistic(values[rng.integers(len(values), size=(RESAMPLES, len(values)))])
    return _between(float(statistic(values)), drawn, len(values))


def _between(value: float, drawn: np.ndarray, repeats: int) -> Estimate:
    tail = (1 - CONFIDENCE) / 2 * 100
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Estimate(value, float(low), float(high), repeats)
