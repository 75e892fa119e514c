"""The completion waiter: who waits for a batch or job to end; one look at the database serves all of them.

Looks are `FIRST_PAUSE_SECONDS` apart while anybody has just begun to wait, and grow apart with the wait of the latest
one, so that a wait is hardly ever longer by more than a quarter. No connection is held between them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final

from penstock.domain.work.batch import BatchKey
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.store.batches import batch_reads

FIRST_PAUSE_SECONDS: Final = 0.02
LONGEST_PAUSE_SECONDS: Final = 0.5
_GROWTH: Final = 0.25
_LEFT_SECONDS: Final = 2.0
"""So often it is looked whether a caller is still there."""


class CompletionWaiter:
    """One API process's, on its event loop."""

    def __init__(self, db: AsyncDatabase, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._db = db
        self._clock = clock
        self._waiting: dict[BatchKey, list[asyncio.Future[None]]] = {}
        self._latest_at = self._looked_at = -LONGEST_PAUSE_SECONDS
        self._came = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    async def wait(self, tenant: str, kind: str, id: str, seconds: float, left: Callable[[], Awaitable[bool]]) -> None:
        """Return once it has ended or is not there, the time is over or the caller has left; raise Unavailable."""
        key = BatchKey(tenant, kind, id)
        end = self._clock() + seconds
        ended = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(ended)
        self._latest_at = self._clock()
        self._came.set()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_while_any_waits())
        try:
            while (remaining := end - self._clock()) > 0 and not ended.done():
                await asyncio.wait({ended}, timeout=min(_LEFT_SECONDS, remaining))
                if not ended.done() and await left():
                    return
            if ended.done():
                ended.result()
        finally:
            self._forget(key, ended)

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking

    def _forget(self, key: BatchKey, ended: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(key, [])
        if ended in waiting:
            waiting.remove(ended)
        if not waiting:
            self._waiting.pop(key, None)

    async def _look_while_any_waits(self) -> None:
        while self._waiting:
            await self._pause()
            asked = list(self._waiting)
            self._looked_at = self._clock()
            try:
                self._tell(await self._db.autocommit(_ended, asked))
            except Exception as error:  # those who wait hear of it, and whoever comes next looks anew
                self._tell(asked, error)

    async def _pause(self) -> None:
        """Sleep until the next look is due, which somebody who comes meanwhile brings nearer."""
        while True:
            now = self._clock()
            grown = _GROWTH * (now - self._latest_at)
            pause = self._looked_at + min(LONGEST_PAUSE_SECONDS, max(FIRST_PAUSE_SECONDS, grown)) - now
            if pause <= 0:
                return
            self._came.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._came.wait(), pause)

    def _tell(self, keys: Iterable[BatchKey], error: Exception | None = None) -> None:
        for key in keys:
            for ended in self._waiting.pop(key, []):
                if ended.done():
                    continue
                if error is None:
                    ended.set_result(None)
                else:
                    ended.set_exception(error)


def _ended(tx: Transaction, keys: list[BatchKey]) -> list[BatchKey]:
    return batch_reads.ended_or_gone(tx.conn, keys)
