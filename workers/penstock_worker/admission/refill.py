"""The refill: how fast batch lines enter the engine beside waiting calls, by the prompts that it has to compute.

Lines of one template run in step: all of them end together, as many new ones enter at once, and a call that comes in
that moment stands behind their prompts. While calls are present such a wave enters over a quarter of the time that a
line takes instead, a few lines between two tokens of those who run; and so it ends a turn later. When nobody calls,
whole bursts enter at once.

    base    four times the prompts of the lines that ended lately; while none has, nothing is bounded
    ramp    doubles each second that lines are held back, from when they have less than half of their budget until it is
            nearly full
    burst   base times the time between two tokens; whoever comes while it is not used up enters, however long

Spreading them further costs the batch more than it gives the calls: what waits leaves the engine emptier, so that fewer
end, and a bound that is near to what ends (1.25 times was tried) keeps itself low: a third of the lines/s was lost.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Final

CALM_SECONDS: Final = 5.0
"""So long after the last call lines are held back."""
_MORE: Final = 4.0
_LATELY_SECONDS: Final = 10.0
"""Lines that ended so long ago count 1/e."""
_LEAST_GAP_SECONDS: Final = 0.01
_MOST_GAP_SECONDS: Final = 0.5
_RAMP_SECONDS: Final = 1.0
_RAMP_FROM: Final = 0.5
_RAMP_TO: Final = 0.9


class Refill:
    """One engine's; tokens are those of prompts. It lives on the gate's loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._called_at = -math.inf
        self._ended = self._lately = 0.0
        """Tokens of lines that ended, and the busy seconds in which they did: those of long ago for less."""
        self._ended_at = 0.0
        self.busy_seconds: Callable[[], float] = clock
        """How long any line was in the engine, all such times together."""
        self._gap_seconds = 0.05
        self._level, self._level_at = 0.0, clock()
        self._ramped_since: float | None = None

    def ended(self, tokens: int) -> None:
        """A line of so many tokens has left."""
        self._ended, self._lately = self._ended_lately()
        self._ended += tokens
        self._ended_at = self.busy_seconds()

    def seen(self, gaps: Sequence[float]) -> None:
        """The seconds between tokens of calls since the last look."""
        if gaps:
            self._gap_seconds = min(max(median(gaps), _LEAST_GAP_SECONDS), _MOST_GAP_SECONDS)

    def call_is_here(self) -> None:
        """A waiting call came, or is in flight."""
        self._called_at = self._clock()

    def wait_seconds(self, held: float) -> float:
        """How long the next line has to wait; 0: it may enter. `held`: the part of their budget that lines have."""
        now = self._clock()
        rate = self._rate(now, held)
        if rate == math.inf:
            self._ramped_since = None
            return 0.0
        most = rate * self._gap_seconds
        self._level = min(most, self._level + rate * (now - self._level_at))
        self._level_at = now
        if self._level > 0:
            return 0.0
        if self._ramped_since is None and held < _RAMP_FROM:
            self._ramped_since = now
        return -self._level / rate + self._gap_seconds / 2

    def entered(self, tokens: int) -> None:
        """A line of so many tokens came in."""
        if self._base(self._clock()) < math.inf:
            self._level -= tokens

    @property
    def tokens_per_second(self) -> float:
        """What may enter now; infinite where nothing is bounded. From any thread."""
        return self._base(self._clock())

    def _rate(self, now: float, held: float) -> float:
        base = self._base(now)
        if held >= _RAMP_TO:
            self._ramped_since = None
        if self._ramped_since is None:
            return base
        return base * 2 ** min((now - self._ramped_since) / _RAMP_SECONDS, 20.0)

    def _base(self, now: float) -> float:
        if now - self._called_at > CALM_SECONDS:
            return math.inf
        tokens, seconds = self._ended_lately()
        return _MORE * tokens / seconds if tokens and seconds else math.inf

    def _ended_lately(self) -> tuple[float, float]:
        left = math.exp((self._ended_at - self.busy_seconds()) / _LATELY_SECONDS)
        return self._ended * left, self._lately * left + _LATELY_SECONDS * (1.0 - left)
