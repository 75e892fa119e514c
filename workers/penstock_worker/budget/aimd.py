"""AIMD: how many batch lines an engine takes that does not say how loaded it is. Pure: it is told what was met.

Additive increase, multiplicative decrease (Chiu and Jain, 1989), as TCP does it: half as many once the engine refuses
for want of room, a little more with each step in which all places were used and nothing was wrong. Where nothing else
is known of the engine's load, its latency counts too: nine tenths as many while answers take twice as long for each
token as they did on a running average (a gradient, as in Netflix's concurrency-limits). That sign is weak, since lines
of another kind take longer too: it never takes more than half.
"""

from __future__ import annotations

from statistics import median
from typing import Final

from penstock_worker.admission.backpressure import Pressure

_REFUSED: Final = 0.5
_SLOW: Final = 0.9
_SLOWER: Final = 2.0
_LEAST_SAMPLES: Final = 8
_WEIGHT: Final = 0.1
"""Of one window in the average: after ten windows what was before weighs a third."""
_USED: Final = 0.8
"""Of the limit, that must have been in flight for it to rise: else nothing was tried."""


class Aimd:
    """The limit that an engine's refusals and latency set: `limit`, n if nothing does."""

    def __init__(self, most_lines: int, *, by_latency: bool) -> None:
        self._most = most_lines
        self._step = max(1, most_lines // 64)
        self._least_by_latency = max(1, most_lines // 2)
        self._by_latency = by_latency
        self._long: float | None = None
        self._window: list[float] = []
        self.limit = most_lines
        self.slow = False
        """Whether latency was what lowered it last, not a refusal."""

    def step(self, lines: int, met: Pressure) -> None:
        """One step's end: `lines` are in flight now."""
        if met.refusals:
            self.slow = False
            self._window.clear()
            self.limit = max(1, int(min(self.limit, max(met.lines, 1)) * _REFUSED))
        elif self._by_latency and self._is_slow(met.seconds_per_token):
            self.slow = True
            self.limit = max(int(min(self.limit, max(lines, 1)) * _SLOW), min(self.limit, self._least_by_latency))
        elif lines >= self.limit * _USED:
            self.limit = min(self._most, self.limit + self._step)

    def _is_slow(self, samples: tuple[float, ...]) -> bool:
        self._window += samples
        if len(self._window) < _LEAST_SAMPLES:
            return False
        now = median(self._window)
        self._window.clear()
        before = self._long if self._long is not None else now
        self._long = before + (now - before) * _WEIGHT
        return now > _SLOWER * before
