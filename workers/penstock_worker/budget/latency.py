"""Latencies: what waiting calls met since somebody last looked: time to first token, and gaps between tokens."""

from __future__ import annotations

import random
from typing import Final

MOST_SAMPLES: Final = 512


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

    def __init__(self, seed: int = 0) -> None:
        chance = random.Random(seed)
        self._ttft, self._gaps = _Sample(chance), _Sample(chance)

    def ttft(self, seconds: float) -> None:
        """A streamed call had its first byte so long after it came to the ingress."""
        self._ttft.add(seconds)

    def gap(self, seconds: float) -> None:
        """So long passed between two chunks of a stream."""
        self._gaps.add(seconds)

    def take(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Times to first token and gaps since the last call, in seconds: at most `MOST_SAMPLES` of each."""
        return self._ttft.take(), self._gaps.take()
