"""Breakers: a worker that failed three times in a row is left alone for a while; then one call at a time tries it.

closed ── 3 failures in a row ──▶ open ── its pause is over ──▶ half-open: one call goes, the next a pause later
  ▲                                 ▲                               │
  └──────────── it works ───────────┼───────────────────────────────┤
                                    └── it fails: twice the pause ──┘

In a row means one after the other: of a thousand calls that were under way together and failed, one counts. Whoever
sends them all at once learns that his own loop is slow, or that one engine died.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

FAILURES: Final = 3
FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """What is known of one worker; each event gives a new one. `now` is any clock that only goes forward."""

    failures: int = 0
    """In a row."""
    pause_seconds: float = 0.0
    """0: closed."""
    until: float = 0.0
    trying: bool = False
    """Half-open, and a call is there."""
    failed_at: float = -math.inf
    """When the last failure that counted was seen."""

    def allows(self, now: float) -> bool:
        """Whether a call may go there."""
        return self.pause_seconds == 0 or now >= self.until

    def tried(self, now: float) -> Breaker:
        """A call goes there. If it is the one that tries, the next must wait for a pause, whatever becomes of it."""
        return self if self.pause_seconds == 0 else replace(self, until=now + self.pause_seconds, trying=True)

    def failed(self, began: float, now: float) -> Breaker:
        """It did not take a call that was sent at `began`, or died with it."""
        if began < self.failed_at:
            return self  # it was under way when the last one failed
        failures = self.failures + 1
        if self.pause_seconds == 0 and failures < FAILURES:
            return replace(self, failures=failures, failed_at=now)
        if self.pause_seconds and not self.trying:
            return self  # a call that went there before the breaker opened says nothing new
        pause = min(LONGEST_PAUSE_SECONDS, 2 * self.pause_seconds or FIRST_PAUSE_SECONDS)
        return Breaker(failures, pause, now + pause, failed_at=now)


CLOSED: Final = Breaker()
"""Nothing is held against a worker: the breaker of one that works."""
