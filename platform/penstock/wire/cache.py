"""The shared cache: exact answers kept in Redis for a while. Whatever is wrong with it is a miss, and soon.

A key is a hash of tenant, model, the engine's revision and the canonical request, so nobody can name another's. A value
is compressed, and has a hash of its key and its answer in front: what was cut, mixed up or written by somebody else is
a miss. Redis is trusted as the hints' own is: who can write there can also make the hash.

All entries together stay below a bound that is counted here, in Redis, by the script that stores them: those nearest
their end go first. So hints in the same Redis always find room.
"""

from __future__ import annotations

import asyncio
import hashlib
import queue
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog
from prometheus_client import Counter
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError

from penstock.wire.redis_patience import RedisPatience, options

log = structlog.get_logger()

LOOKUPS = Counter(
    "penstock_cache_lookups", "Requests looked up in the shared cache, by who asked and what came.", ["asker", "result"]
)
KEPT = Counter("penstock_cache_kept", "Answers stored in the shared cache.")
UNKEPT = Counter("penstock_cache_unkept", "Answers that could not be stored, by reason.", ["reason"])

_VERSION: Final = b"\x02"
_DIGEST_BYTES: Final = 16
# One tag, so that a Redis cluster holds all of it in one place: the script needs that.
_TAG: Final = b"{penstock-cache}"
_INDEX: Final = (_TAG + b"by-end", _TAG + b"sizes", _TAG + b"bytes")
_ENTRY_BYTES: Final = 512
"""What an entry costs beside its value: three keys' worth of Redis's own bookkeeping (measured: some 400 bytes)."""
_AT_ONCE: Final = 32
_WAITING: Final = 4_096
_BLOCK: Final = 128

_KEEP: Final = """
-- Store answers, and drop those nearest their end until all fit. What Redis itself dropped is no longer counted either.
local index, sizes, total = KEYS[1], KEYS[2], KEYS[3]
local most, per_entry = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = tonumber(redis.call('TIME')[1])
local function drop(key)
    redis.call('UNLINK', key)
    redis.call('ZREM', index, key)
    local size = redis.call('HGET', sizes, key)
    if size then
        redis.call('HDEL', sizes, key)
        redis.call('DECRBY', total, size)
    end
end
for _, key in ipairs(redis.call('ZRANGE', index, '-inf', now, 'BYSCORE', 'LIMIT', 0, 256)) do drop(key) end
local kept = 0
for place = 4, #KEYS do
    local key, ttl, value = KEYS[place], tonumber(ARGV[2 * place - 5]), ARGV[2 * place - 4]
    local size = #value + #key + per_entry
    if size <= most then
        drop(key)
        while tonumber(redis.call('GET', total) or '0') + size > most do
            local first = redis.call('ZRANGE', index, 0, 0)
            if #first == 0 then redis.call('UNLINK', sizes, total) else drop(first[1]) end
        end
        redis.call('SET', key, value, 'EX', ttl)
        redis.call('ZADD', index, now + ttl, key)
        redis.call('HSET', sizes, key, size)
        redis.call('INCRBY', total, size)
        kept = kept + 1
    end
end
return kept
"""


@dataclass(frozen=True)
class Bounds:
    """How large an answer and all of them may be, how long one lives, and how long anybody waits for Redis."""

    answer_bytes: int
    all_bytes: int
    ttl_seconds: int
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer to be stored; `ttl_seconds` None is the platform's default."""

    key: bytes
    body: bytes
    ttl_seconds: int | None


def key_of(tenant: str, model: str, revision: str, fingerprint: bytes) -> bytes:
    """The key of an answer: a hash, in which every part has its length in front of it."""
    hash = hashlib.blake2b(digest_size=32)
    for part in (tenant.encode(), model.encode("utf-8", "surrogatepass"), revision.encode(), fingerprint):
        hash.update(b"%d:%b" % (len(part), part))
    return _TAG + hash.digest()


def pack(key: bytes, body: bytes) -> bytes:
    """A value: version, hash, compressed answer."""
    packed = zlib.compress(body, 1)
    return _VERSION + _digest(key, packed) + packed


def unpack(key: bytes, value: bytes | str | None, most_bytes: int) -> bytes | None:
    """The answer of a value; None if there is none, or it is not what was stored under this key."""
    start = len(_VERSION) + _DIGEST_BYTES
    if not isinstance(value, bytes) or not value.startswith(_VERSION) or len(value) <= start:
        return None
    packed = value[start:]
    if value[len(_VERSION) : start] != _digest(key, packed):
        return None
    reading = zlib.decompressobj()
    try:
        body = reading.decompress(packed, most_bytes)
    except zlib.error:
        return None
    return body if reading.eof and not reading.unused_data else None


def _digest(key: bytes, packed: bytes) -> bytes:
    return hashlib.blake2b(packed, key=key[-32:], digest_size=_DIGEST_BYTES).digest()


def _packed(entries: Sequence[Entry], bounds: Bounds) -> tuple[list[bytes], list[bytes | int]]:
    """Keys and arguments of the script."""
    keys: list[bytes] = [*_INDEX]
    arguments: list[bytes | int] = [bounds.all_bytes, _ENTRY_BYTES]
    for entry in entries:
        keys.append(entry.key)
        arguments += [entry.ttl_seconds or bounds.ttl_seconds, pack(entry.key, entry.body)]
    return keys, arguments


class Cache:
    """The cache for threads: looked up in blocks, stored by a thread of its own; closed at the end."""

    def __init__(self, url: str, bounds: Bounds, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._bounds = bounds
        self._redis = Redis.from_url(url, **options(bounds.timeout_seconds))
        self._ward = RedisPatience("cache", clock)
        self._waiting: queue.Queue[Entry | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._store, name="cache", daemon=True)
        self._thread.start()

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The answers under these keys, None where there is none. Never raises; waits for one block that fails."""
        found: list[bytes | None] = []
        for start in range(0, len(keys), _BLOCK):
            block = keys[start : start + _BLOCK]
            if not self._ward.allows():
                break
            try:
                values = self._redis.mget(block)
            except (RedisError, OSError) as error:
                self._ward.failed(error)
                break
            self._ward.worked()
            most = self._bounds.answer_bytes
            found += [unpack(key, value, most) for key, value in zip(block, values, strict=True)]
        hits = len(found) - found.count(None)
        LOOKUPS.labels("line", "hit").inc(hits)
        LOOKUPS.labels("line", "miss").inc(len(found) - hits)
        LOOKUPS.labels("line", "away").inc(len(keys) - len(found))
        return found + [None] * (len(keys) - len(found))

    def keep(self, entry: Entry) -> None:
        """Store an answer soon; never raises, never blocks. What finds no room in the queue is dropped."""
        if len(entry.body) > self._bounds.answer_bytes:
            UNKEPT.labels("large").inc()
            return
        try:
            self._waiting.put_nowait(entry)
        except queue.Full:
            UNKEPT.labels("full").inc()

    def _store(self) -> None:
        going_on = True
        while going_on:
            entries = [self._waiting.get()]
            with suppress(queue.Empty):
                while len(entries) < _AT_ONCE:
                    entries.append(self._waiting.get_nowait())
            going_on = None not in entries
            self._send([entry for entry in entries if entry is not None])

    def _send(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        if not self._ward.allows():
            UNKEPT.labels("away").inc(len(entries))
            return
        keys, arguments = _packed(entries, self._bounds)
        try:
            KEPT.inc(int(self._redis.eval(_KEEP, len(keys), *keys, *arguments)))
        except (RedisError, OSError) as error:
            UNKEPT.labels("away").inc(len(entries))
            self._ward.failed(error)
        else:
            self._ward.worked()

    def close(self) -> None:
        """Store what waits, then stop; a Redis that is away is not waited for."""
        self._waiting.put(None)
        self._thread.join()
        self._redis.close()


class AsyncCache:
    """The same for waiting calls, on one event loop: one answer at a time."""

    def __init__(self, url: str, bounds: Bounds, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._bounds = bounds
        self._redis = AsyncRedis.from_url(url, **options(bounds.timeout_seconds))
        self._ward = RedisPatience("cache", clock)
        self._storing: set[asyncio.Task[None]] = set()

    async def get(self, key: bytes) -> bytes | None:
        """The answer under this key, or None. Never raises, and takes no longer than the timeout."""
        if not self._ward.allows():
            LOOKUPS.labels("call", "away").inc()
            return None
        try:
            async with asyncio.timeout(self._bounds.timeout_seconds):
                value = await self._redis.get(key)
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            LOOKUPS.labels("call", "away").inc()
            self._ward.failed(error)
            return None
        self._ward.worked()
        body = unpack(key, value, self._bounds.answer_bytes)
        LOOKUPS.labels("call", "miss" if body is None else "hit").inc()
        return body

    def keep(self, entry: Entry) -> None:
        """Store an answer soon; never raises, never blocks."""
        if len(entry.body) > self._bounds.answer_bytes:
            UNKEPT.labels("large").inc()
        elif len(self._storing) >= _AT_ONCE:
            UNKEPT.labels("full").inc()
        elif not self._ward.allows():
            UNKEPT.labels("away").inc()
        else:
            task = asyncio.create_task(self._send(entry))
            self._storing.add(task)
            task.add_done_callback(self._storing.discard)

    async def _send(self, entry: Entry) -> None:
        try:
            # Compressed in a thread: an answer of a megabyte takes some milliseconds.
            keys, arguments = await asyncio.to_thread(_packed, [entry], self._bounds)
            async with asyncio.timeout(self._bounds.timeout_seconds):
                KEPT.inc(int(await self._redis.eval(_KEEP, len(keys), *keys, *arguments)))
        except (RedisError, OSError) as error:
            UNKEPT.labels("away").inc()
            self._ward.failed(error)
        else:
            self._ward.worked()

    async def close(self) -> None:
        """Let what is being stored end, then stop."""
        await asyncio.gather(*self._storing, return_exceptions=True)
        await self._redis.aclose()
