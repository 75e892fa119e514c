"""Patience with Redis: how its clients are opened that must not wait for it, and when they don't even ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from penstock.domain.calls.breaker import CLOSED, Breaker

log = structlog.get_logger()


def options(timeout_seconds: float) -> dict[str, Any]:
    """Of a client that must not wait: no retries, no greetings, for each would wait for a timeout of its own."""
    return {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        "lib_name": None,
        "lib_version": None,
    }


class RedisPatience:
    """Lets nobody wait again and again for a Redis that does not answer."""

    def __init__(self, user: str, clock: Callable[[], float]) -> None:
        self._user = user
        """Who needs it, for the log."""
        self._clock = clock
        self._breaker: Breaker = CLOSED

    def allows(self) -> bool:
        """Whether Redis may be asked now."""
        now = self._clock()
        if not self._breaker.allows(now):
            return False
        self._breaker = self._breaker.tried(now)
        return True

    def failed(self, error: Exception) -> None:
        """It did not answer."""
        now = self._clock()  # also as the beginning: each that waited in vain counts, for others would wait as long
        before, self._breaker = self._breaker, self._breaker.failed(now, now)
        if self._breaker.pause_seconds and not before.pause_seconds:
            log.warning(f"{self._user}_away", error=type(error).__name__, seconds=self._breaker.pause_seconds)

    def worked(self) -> None:
        """It answered."""
        self._breaker = CLOSED
