"""A latency histogram: how many calls had their first byte after about how long; those of several workers add up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

BUCKETS: Final = 50
"""Ten for each power of ten, from 1 ms to 100 s: a percentile is right to an eighth of itself."""
_IN_TEN: Final = 10


def bucket(seconds: float) -> int:
    """The bucket of a latency; the first and the last have all that is beyond."""
    if seconds <= 0.001:
        return 0
    return min(BUCKETS - 1, int(math.log10(seconds * 1000) * _IN_TEN))


def added(histograms: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """All of them together; one of another length, of code that is older or newer, is left out."""
    fitting = [one for one in histograms if len(one) == BUCKETS]
    return tuple(map(sum, zip(*fitting, strict=True))) if fitting else ()


def percentile_ms(histogram: Sequence[int], part: float) -> float | None:
    """The latency in milliseconds that this part of the calls met at most, by its bucket's middle; None of no calls."""
    total = sum(histogram)
    if not total:
        return None
    left = part * total
    for number, count in enumerate(histogram):
        left -= count
        if count and left <= 0:
            return _middle_ms(number)
    return _middle_ms(len(histogram) - 1)


def _middle_ms(number: int) -> float:
    return float(10 ** ((number + 0.5) / _IN_TEN))
