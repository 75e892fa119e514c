"""The session watch: sessions of who only looks on are looked up now and then, all of them in one statement.

A page that goes on is no question, so it keeps no session from being idle.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from penstock.domain.api_errors import PenstockError
from penstock.service.admin import sessions
from penstock.service.core.transaction import AsyncDatabase
from penstock.settings import Settings

LOOK_SECONDS: Final = 10.0


class WatchedSession:
    """One stream's session."""

    def __init__(self, token: str, end: Callable[[], None]) -> None:
        self.token = token
        self.over = False
        self._end = end

    def ends(self) -> None:
        """It is over."""
        self.over = True
        self._end()


class SessionWatch:
    """One process's, on its event loop."""

    def __init__(self, db: AsyncDatabase, settings: Settings) -> None:
        self._db = db
        self._settings = settings
        self._watched: set[WatchedSession] = set()
        self._looking: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def watched(self, token: str, end: Callable[[], None]) -> AsyncIterator[WatchedSession]:
        """Watch a session that is valid now; `end` is called once it is over."""
        one = WatchedSession(token, end)
        self._watched.add(one)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_while_any_is_watched())
        try:
            yield one
        finally:
            self._watched.discard(one)
            if not self._watched:
                self._looking.cancel()

    async def _look_while_any_is_watched(self) -> None:
        while self._watched:
            await asyncio.sleep(LOOK_SECONDS)
            tokens = {one.token for one in self._watched}
            try:
                valid = await self._db.autocommit(sessions.valid, tokens, self._settings)
            except PenstockError:
                continue  # the database is away: they go on, and it is looked again
            for one in [one for one in self._watched if one.token in tokens - valid]:
                one.ends()
