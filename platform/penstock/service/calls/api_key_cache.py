"""The API key cache: which tenant a key speaks for, remembered for seconds; a waiting call need not wait for Postgres.

Only hashes of keys are remembered. A revoked key dies within `key_cache_seconds` of its revocation; while Postgres is
away, keys that it confirmed within `key_stale_seconds` stay valid.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache

from penstock.domain.api_errors import Unauthorized, Unavailable
from penstock.service.admin import keys
from penstock.service.core.transaction import AsyncDatabase
from penstock.settings.calls import CallSettings

_MOST_REMEMBERED: Final = 10_000
_MOST_KEY_CHARACTERS: Final = 256
_LOOKUPS_AT_ONCE: Final = 4
"""Of the process's connections: a flood of wrong keys leaves the others to everybody else."""
_MISS_SECONDS: Final = 1.0
"""A key that was just made works within this time, even if it was tried before."""
_PATIENCE_SECONDS: Final = 1.0
"""A key that was valid a moment ago does not wait longer for a Postgres that says nothing."""


@dataclass(frozen=True, slots=True)
class _Known:
    tenant: str
    at: float


class ApiKeyCache:
    """One process's memory of keys, on one event loop."""

    def __init__(
        self, db: AsyncDatabase, settings: CallSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._db = db
        self._fresh_seconds = settings.key_cache_seconds
        self._stale_seconds = settings.key_stale_seconds
        self._clock = clock
        self._known: LRUCache[bytes, _Known] = LRUCache(_MOST_REMEMBERED)
        self._unknown: LRUCache[bytes, float] = LRUCache(_MOST_REMEMBERED)
        self._asking: dict[bytes, asyncio.Task[str | None]] = {}
        self._turn = asyncio.Semaphore(_LOOKUPS_AT_ONCE)
        self._away_until = 0.0

    async def tenant_of(self, key: str) -> str:
        """The tenant that this key speaks for; raise Unauthorized, or Unavailable if that can't be known now."""
        if len(key) > _MOST_KEY_CHARACTERS:
            raise Unauthorized
        hash = keys.hash_of(key)
        now = self._clock()
        known = self._known.get(hash)
        if known is None:
            missed = self._unknown.get(hash)
            if missed is not None and now - missed < min(_MISS_SECONDS, self._fresh_seconds):
                raise Unauthorized
            return _or_refused(await asyncio.shield(self._ask(hash)))
        age = now - known.at
        if age < self._fresh_seconds:
            if age > self._fresh_seconds / 2 and now >= self._away_until:
                self._ask(hash)  # so that a key in use is looked up before anybody has to wait for that
            return known.tenant
        return await self._again(hash, known, now)

    async def _again(self, hash: bytes, known: _Known, now: float) -> str:
        """Ask about a key that was valid some time ago; without an answer it stays so for a while."""
        if now >= self._away_until:
            asking = self._ask(hash)
            await asyncio.wait({asking}, timeout=_PATIENCE_SECONDS)
            if asking.done() and asking.exception() is None:
                return _or_refused(asking.result())
            self._away_until = self._clock() + _PATIENCE_SECONDS
        if now - known.at < self._stale_seconds:
            return known.tenant
        raise Unavailable("The database is away; try again shortly.")

    def _ask(self, hash: bytes) -> asyncio.Task[str | None]:
        """Look a key up; whoever asks for the same meanwhile waits for the same answer."""
        asking = self._asking.get(hash)
        if asking is None:
            asking = self._asking[hash] = asyncio.create_task(self._look_up(hash))
            asking.add_done_callback(lambda done: self._answered(hash, done))
        return asking

    async def _look_up(self, hash: bytes) -> str | None:
        async with self._turn:
            asked_at = self._clock()
            tenant = await self._db.autocommit(keys.tenant_of_hash, hash)
        if tenant is not None:
            self._known[hash] = _Known(tenant, asked_at)
        else:
            self._known.pop(hash, None)
            self._unknown[hash] = asked_at
        return tenant

    def _answered(self, hash: bytes, done: asyncio.Task[str | None]) -> None:
        del self._asking[hash]
        if not done.cancelled() and isinstance(done.exception(), Unavailable):
            self._away_until = self._clock() + _PATIENCE_SECONDS

    async def close(self) -> None:
        """Stop asking."""
        for task in list(self._asking.values()):
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)


def _or_refused(tenant: str | None) -> str:
    if tenant is None:
        raise Unauthorized
    return tenant
