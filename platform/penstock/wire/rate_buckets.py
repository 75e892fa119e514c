"""Rate buckets: token buckets in Redis, which all API processes take from; one that is full is no key at all.

The script is domain/limits/token_bucket.py, word by word, on Redis's own clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.wire.redis_patience import RedisPatience, options

_KEY: Final = b"penstock-rate:"
_TAKE: Final = """
local per_minute, owed, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local was = redis.call('HMGET', KEYS[1], 'level', 'at')
local level = per_minute
if was[1] then level = math.min(per_minute, was[1] + math.max(0, now - was[2]) * per_minute / 60) end
level = level - owed
local taken = math.max(0, math.min(wanted, math.floor(level)))
level = level - taken
redis.call('HSET', KEYS[1], 'level', string.format('%.6f', level), 'at', string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], math.ceil(math.max(1, (per_minute - level) * 60 / math.max(1, per_minute))) + 1)
return {taken, string.format('%.6f', level)}
"""


class Away(Exception):
    """Redis did not answer, or is not asked for a while since it did not."""


@dataclass(frozen=True, slots=True)
class Taking:
    """What one process pays to a bucket and wants of it."""

    bucket: str
    per_minute: int
    owed: int
    wanted: int


class RateBuckets:
    """One process's way to them, on one event loop."""

    def __init__(self, url: str, timeout_seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = Redis.from_url(url, **options(timeout_seconds))
        self._patience = RedisPatience("rate_buckets", clock)

    async def take(self, takings: Sequence[Taking]) -> list[tuple[int, float]]:
        """Of each bucket how much was taken, and what is left in it, in one round trip; raises Away."""
        if not self._patience.allows():
            raise Away
        pipeline = self._redis.pipeline(transaction=False)
        for one in takings:
            pipeline.eval(_TAKE, 1, _KEY + one.bucket.encode(), one.per_minute, one.owed, one.wanted)
        try:
            found = await pipeline.execute()
        except (RedisError, OSError) as error:
            self._patience.failed(error)
            raise Away from error
        self._patience.worked()
        return [(int(taken), float(level)) for taken, level in found]

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
