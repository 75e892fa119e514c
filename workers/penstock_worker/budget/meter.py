"""The meter: how many batch tokens a second this worker does while it has batch lines in its engine.

Idle time does not count: a worker that waits for work is not a slow one. Tokens come in at flushes, from any thread;
busy time is what the gate counted since the look before.
"""

from __future__ import annotations

import threading
from typing import Final

HALF_LIFE_SECONDS: Final = 30.0


class Meter:
    """An average over busy time in which what is `half_life_seconds` of it ago weighs half."""

    def __init__(self, half_life_seconds: float = HALF_LIFE_SECONDS) -> None:
        self._half_life_seconds = half_life_seconds
        self._lock = threading.Lock()
        self._looked_at = 0.0
        self._fresh_tokens = 0
        self._tokens = 0.0
        self._busy_seconds = 0.0

    def recorded(self, tokens: int) -> None:
        """So many tokens of batch lines (input and output, as the engine counts them) were recorded."""
        with self._lock:
            self._fresh_tokens += tokens

    def tokens_per_second(self, busy_seconds: float) -> float:
        """The average now, after so many seconds with batch lines in flight in all; 0 before anything was recorded."""
        with self._lock:
            passed_seconds = max(0.0, busy_seconds - self._looked_at)
            left = 0.5 ** (passed_seconds / self._half_life_seconds)
            # Answers are recorded up to a flush later than they came: they count even if no line is left by now.
            self._tokens = self._tokens * left + self._fresh_tokens
            self._busy_seconds = self._busy_seconds * left + passed_seconds
            self._fresh_tokens = 0
            self._looked_at = max(self._looked_at, busy_seconds)
            return self._tokens / self._busy_seconds if self._busy_seconds else 0.0
