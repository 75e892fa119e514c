"""Backpressure: what an engine said of its own limits, and what lines met in it: the budget follows both.

While the engine has enough, the gate lets no line in. It lives on the gate's loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from penstock_worker.admission.gate import Gate

_LEAST_HOLD_SECONDS: Final = 0.05
"""Whoever says `retry-after: 0` is not asked in a circle."""
_FIRST_HOLD_SECONDS: Final = 0.5
_MOST_HOLD_SECONDS: Final = 30.0
_MOST_SAMPLES: Final = 512


@dataclass(frozen=True)
class Pressure:
    """What was met since the last look."""

    refusals: int = 0
    """How often the engine had enough: those that were refused together count as one."""
    lines: int = 0
    """Batch lines in flight when it first said so."""
    seconds_per_token: tuple[float, ...] = ()
    """Of lines that were answered: their time in the engine by the tokens of their answers."""


NO_PRESSURE: Final = Pressure()


class Backpressure:
    """One engine's word on how much it takes now."""

    def __init__(self, gate: Gate, clock: Callable[[], float] = time.monotonic) -> None:
        self._gate = gate
        self._clock = clock
        self._until = self._calls_until = 0.0
        self._in_row = 0
        self._refusals = self._lines = 0
        self._samples: deque[float] = deque(maxlen=_MOST_SAMPLES)
        self._lifting: asyncio.TimerHandle | None = None
        self.refused_lines = self.refused_calls = 0
        """Requests since the start."""

    @property
    def holds(self) -> bool:
        """Whether lines are kept out now."""
        return self._clock() < self._until

    @property
    def call_wait_seconds(self) -> float:
        """For how long a waiting call would be refused; 0.0 if it may try."""
        return max(0.0, self._calls_until - self._clock())

    def refused_line(self, hold_seconds: float | None) -> float:
        """The engine told a line that it has enough, for so long; for how long lines are kept out now.

        Without a word of how long it is half a second, and twice as long each time that it says so again right after.
        """
        self.refused_lines += 1
        return self._refused(hold_seconds)

    def refused_call(self, hold_seconds: float | None) -> float:
        """The same told a waiting call. If it said how long, others are not sent meanwhile; for how long that is."""
        self.refused_calls += 1
        if hold_seconds:
            self._calls_until = max(self._calls_until, self._clock() + hold_seconds)
        self._refused(hold_seconds)
        return self.call_wait_seconds

    def _refused(self, hold_seconds: float | None) -> float:
        if not self.holds:
            self._refusals += 1
            self._lines = max(self._lines, self._gate.lines)
            self._in_row += 1
        if hold_seconds is None:
            hold_seconds = min(_MOST_HOLD_SECONDS, _FIRST_HOLD_SECONDS * 2.0 ** (min(self._in_row, 16) - 1))
        return self.hold(max(hold_seconds, _LEAST_HOLD_SECONDS))

    def hold(self, seconds: float) -> float:
        """Let no line in for so long; how long it is in all."""
        now = self._clock()
        if now + seconds > self._until:
            self._until = now + seconds
            self._gate.lines_held = True
            if self._lifting:
                self._lifting.cancel()
            self._lifting = asyncio.get_running_loop().call_later(seconds, self._lift)
        return self._until - now

    def _lift(self) -> None:
        self._lifting = None
        self._gate.lines_held = False

    def answered(self, seconds: float, tokens: int) -> None:
        """A line was answered after so long in the engine, with so many tokens."""
        self._in_row = 0
        if tokens > 0:
            self._samples.append(seconds / tokens)

    def take(self) -> Pressure:
        """What was met since the last call."""
        met = Pressure(self._refusals, self._lines, tuple(self._samples))
        self._refusals = self._lines = 0
        self._samples.clear()
        return met
