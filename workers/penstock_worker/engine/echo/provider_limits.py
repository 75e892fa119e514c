"""Provider limits: the echo engine refuses as hosted ones do: more at once, or a second, than it was told to take.

It says 429 with `retry-after` and how its rate stands (`x-ratelimit-*`), as OpenAI does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

_MOST_AT_ONCE_RETRY_AFTER: Final = "0.05"


class ProviderLimits:
    """What it takes: 0 is as much as comes."""

    def __init__(
        self, most_at_once: int = 0, requests_per_second: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most_at_once = most_at_once
        self._rate = requests_per_second
        self._clock = clock
        self._left = requests_per_second
        self._at = clock()
        self.refused = 0

    def refuses(self, inside: int) -> Mapping[str, str] | None:
        """The headers of its refusal, of a request that comes while so many others are inside; None: it takes it."""
        if self._most_at_once and inside >= self._most_at_once:
            self.refused += 1
            return {"retry-after": _MOST_AT_ONCE_RETRY_AFTER}
        if not self._rate:
            return None
        now = self._clock()
        self._left = min(self._rate, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left >= 1.0:
            self._left -= 1.0
            return None
        self.refused += 1
        wait = (1.0 - self._left) / self._rate
        return {
            "retry-after": f"{wait:.3f}",
            "x-ratelimit-limit-requests": f"{self._rate:.0f}",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": f"{wait * 1_000:.0f}ms",
        }
