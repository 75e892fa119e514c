"""Latencies: what waiting calls met since somebody last looked: time to first token, and gaps between tokens."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from penstock.domain.engines.engine_report import WINDOW_SECONDS
from penstock.domain.engines.latency_histogram import BUCKETS, added, bucket

MOST_SAMPLES: Final = 512
_SPAN_SECONDS: Final = 5.0
_SPANS: Final = round(WINDOW_SECONDS / _SPAN_SECONDS)


class _Sample:
    """A fair sample of bounded size of any number of values (reservoir sampling, Vitter's algorithm R)."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._seen = 0
        self._kept: list[float] = []

    def add(self, value: float) -> None:
        self._seen += 1
        if len(self._kept) < MOST_SAMPLES:
            self._kept.append(value)
        elif (place := self._chance.randrange(self._seen)) < MOST_SAMPLES:
            self._kept[place] = value

    def take(self) -> tuple[float, ...]:
        kept, self._kept, self._seen = tuple(self._kept), [], 0
        return kept


class Latencies:
    """Lives on one loop; the ingress adds, the budget loop takes."""

    def __init__(self, seed: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        chance = random.Random(seed)
        self._ttft, self._gaps = _Sample(chance), _Sample(chance)
        self._recent: deque[tuple[float, list[int]]] = deque(maxlen=_SPANS + 1)

    def ttft(self, seconds: float) -> None:
        """A streamed call had its first byte so long after it came to the ingress."""
        self._ttft.add(seconds)
        now = self._clock()
        if not self._recent or now - self._recent[-1][0] >= _SPAN_SECONDS:
            self._recent.append((now, [0] * BUCKETS))
        self._recent[-1][1][bucket(seconds)] += 1

    def recent_ttft(self) -> tuple[int, ...]:
        """A latency histogram of the times to first token of the last minute; empty without any. From any thread."""
        since = self._clock() - WINDOW_SECONDS
        return added([counts for began, counts in list(self._recent) if began > since])

    def gap(self, seconds: float) -> None:
        """So long passed between two chunks of a stream."""
        self._gaps.add(seconds)

    def take(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Times to first token and gaps since the last call, in seconds: at most `MOST_SAMPLES` of each."""
        return self._ttft.take(), self._gaps.take()
