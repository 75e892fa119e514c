"""The API key cache: what a key may do, remembered for seconds; a waiting call need not wait for Postgres.

Only hashes of keys are remembered. However many keys come that nobody knows, one statement at a time looks them up, and
many wrong ones a second are answered late: guessing costs the database nothing to speak of. A key dies within
`key_cache_seconds` of its revocation or end; while Postgres is away, keys that it confirmed within `key_stale_seconds`
stay valid.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from cachetools import LRUCache, TTLCache

from penstock.domain.accounts.access import Access
from penstock.domain.api_errors import Unauthorized, Unavailable
from penstock.service.admin import keys
from penstock.service.core.transaction import AsyncDatabase
from penstock.settings.calls import CallSettings

_MOST_REMEMBERED: Final = 10_000
_MOST_KEY_CHARACTERS: Final = 256
_MOST_IN_ONE_LOOK: Final = 500
_FREE_REFUSALS: Final = 20
"""So many a second are told at once that their key is wrong; the others wait, since they come as fast as answers do."""
_LATE_SECONDS: Final = 1.0
_MISS_SECONDS: Final = 1.0
"""A key that was just made works within this time, even if it was tried before."""
_PATIENCE_SECONDS: Final = 1.0
"""A key that was valid a moment ago does not wait longer for a Postgres that says nothing."""


@dataclass(frozen=True, slots=True)
class _Known:
    access: Access
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
        self._asking: dict[bytes, asyncio.Future[Access | None]] = {}
        self._due: list[bytes] = []
        self._looking: asyncio.Task[None] | None = None
        self._refused: TTLCache[int, None] = TTLCache(_FREE_REFUSALS, 1.0, timer=clock)
        self._refusals = itertools.count()
        self._away_until = 0.0

    def whose(self, key: str) -> str | None:
        """Whose key this was when it was last looked up; None if that is not remembered. It says nothing of now."""
        known = self._known.get(keys.hash_of(key)) if len(key) <= _MOST_KEY_CHARACTERS else None
        return known.access.tenant if known else None

    async def refuse(self) -> NoReturn:
        """Raise Unauthorized, late if many are refused at this moment."""
        late = len(self._refused) >= _FREE_REFUSALS
        self._refused[next(self._refusals)] = None
        if late:
            await asyncio.sleep(_LATE_SECONDS)
        raise Unauthorized

    async def access_of(self, key: str) -> Access:
        """What this key may do; raise Unauthorized, or Unavailable if that can't be known now."""
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
            return known.access
        return await self._again(hash, known, now)

    async def _again(self, hash: bytes, known: _Known, now: float) -> Access:
        """Ask about a key that was valid some time ago; without an answer it stays so for a while."""
        if now >= self._away_until:
            asking = self._ask(hash)
            await asyncio.wait({asking}, timeout=_PATIENCE_SECONDS)
            if asking.done() and asking.exception() is None:
                return _or_refused(asking.result())
            self._away_until = self._clock() + _PATIENCE_SECONDS
        if now - known.at < self._stale_seconds:
            return known.access
        raise Unavailable("The database is away; try again shortly.")

    def _ask(self, hash: bytes) -> asyncio.Future[Access | None]:
        """Look a key up; whoever asks for the same meanwhile waits for the same answer."""
        asking = self._asking.get(hash)
        if asking is None:
            asking = self._asking[hash] = asyncio.get_running_loop().create_future()
            self._due.append(hash)
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look())
        return asking

    async def _look(self) -> None:
        """Look up all that are due, many at once, one statement after the other."""
        while self._due:
            hashes, self._due = self._due[:_MOST_IN_ONE_LOOK], self._due[_MOST_IN_ONE_LOOK:]
            asked_at = self._clock()
            try:
                found = await self._db.autocommit(keys.access_of_hashes, hashes)
            except Exception as error:
                if isinstance(error, Unavailable):
                    self._away_until = self._clock() + _PATIENCE_SECONDS
                for hash in hashes:
                    asking = self._asking.pop(hash)
                    asking.set_exception(error)
                    asking.exception()  # perhaps nobody waits for it
                continue
            for hash in hashes:
                self._remember(hash, found.get(hash), asked_at)
                self._asking.pop(hash).set_result(found.get(hash))

    def _remember(self, hash: bytes, access: Access | None, at: float) -> None:
        if access is not None:
            self._known[hash] = _Known(access, at)
        else:
            self._known.pop(hash, None)
            self._unknown[hash] = at

    async def close(self) -> None:
        """Stop asking."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)


def _or_refused(access: Access | None) -> Access:
    if access is None:
        raise Unauthorized
    return access
