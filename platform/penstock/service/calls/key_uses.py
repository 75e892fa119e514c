"""Key uses: which keys were used, noted in memory and written off the requests' way, for each key once a minute.

What a process holds when it is killed is lost: the next use is written then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

import structlog
from cachetools import TTLCache

from penstock.domain.api_errors import Unavailable
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.store.accounts import keys

log = structlog.get_logger()

_WRITE_SECONDS: Final = 5.0
_EACH_SECONDS: Final = 60.0
_MOST: Final = 10_000


class KeyUses:
    """One process's, on one event loop; used with `async with`, whose end writes the last."""

    def __init__(
        self, db: AsyncDatabase, write_seconds: float = _WRITE_SECONDS, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._db = db
        self._write_seconds = write_seconds
        self._due: set[str] = set()
        self._written: TTLCache[str, None] = TTLCache(_MOST, _EACH_SECONDS, timer=clock)
        self._writing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._writing = asyncio.create_task(self._write_on())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writing:
            self._writing.cancel()
            await asyncio.wait([self._writing])
        await self.write()

    def note(self, key: str) -> None:
        """A key, by its id, was used just now."""
        if key not in self._written and len(self._due) < _MOST:
            self._due.add(key)

    async def write(self) -> None:
        """Write what was noted since the last time."""
        due, self._due = sorted(self._due), set()
        if not due:
            return
        for key in due:
            self._written[key] = None
        try:
            await self._db.autocommit(_write, due)
        except Unavailable as error:
            log.warning("key_uses_lost", keys=len(due), error=error.message)

    async def _write_on(self) -> None:
        while True:
            await asyncio.sleep(self._write_seconds)
            try:
                await self.write()
            except Exception as error:  # a bug of ours must not stop the noting for ever
                log.error("key_uses_broken", exc_info=error)


def _write(tx: Transaction, ids: Sequence[str]) -> None:
    keys.used(tx.conn, ids)
