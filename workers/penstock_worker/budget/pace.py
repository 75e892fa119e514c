"""The pace: how much of its engine's GPU time recorded lines are charged with.

GPU-seconds of a segment = engine wall time × GPUs × its tokens ÷ all tokens that the engine processed then. Wall time
is that in which batch lines were in the engine, so an idle engine costs nobody anything; all tokens are the engine's
own counters, those of waiting calls among them. Both are looked at every second or so, and what is `half_life_seconds`
of busy time ago weighs half: a segment's tokens were processed over some time before it is recorded.
"""

from __future__ import annotations

import threading
from typing import Final

HALF_LIFE_SECONDS: Final = 30.0


class Pace:
    """Busy seconds a token, of one engine with so many GPUs; told by one thread, asked by any."""

    def __init__(self, gpus: int = 1, half_life_seconds: float = HALF_LIFE_SECONDS) -> None:
        self._gpus = gpus
        self._half_life_seconds = half_life_seconds
        self._lock = threading.Lock()
        self._seconds = self._tokens = 0.0
        self._looked_at = 0.0
        self._counted: int | None = None
        self._charged_seconds = 0.0

    def seen(self, busy_seconds: float, tokens: int) -> None:
        """The engine's counter, and how long lines were in it, both since their beginning."""
        with self._lock:
            passed, before = busy_seconds - self._looked_at, self._counted
            self._looked_at, self._counted = busy_seconds, tokens
            if before is None or passed <= 0:
                return  # there is nothing to compare with, or nobody to charge
            left = 0.5 ** (passed / self._half_life_seconds)
            self._seconds = self._seconds * left + passed
            # A smaller counter is another engine's, which began at 0.
            self._tokens = self._tokens * left + (tokens - before if tokens >= before else tokens)

    def gpu_microseconds(self, tokens: int, busy_seconds: float) -> int:
        """The GPU time of so many recorded tokens, after so many busy seconds in all."""
        with self._lock:
            uncharged = max(0.0, busy_seconds - self._charged_seconds)
            self._charged_seconds = max(self._charged_seconds, busy_seconds)
            if not tokens:
                return 0
            # Before anything is measured: the busy time since the last segment.
            seconds = tokens * self._seconds / self._tokens if self._tokens else uncharged
        return round(seconds * self._gpus * 1_000_000)
