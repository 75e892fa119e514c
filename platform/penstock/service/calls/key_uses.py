"""Key uses: which keys were used, noted in memory and written off the requests' way, for each key once a minute.

What a process holds when it is killed is lost: the next use is written then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from cachetools import TTLCache

from penstock.domain.api_errors import Unavailable
from penstock.service.core.periodic_writer import WRITE_SECONDS, PeriodicWriter
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.store.accounts import keys

log = structlog.get_logger()

_EACH_SECONDS: Final = 60.0
_MOST: Final = 10_000


class KeyUses(PeriodicWriter):
    """One process's, on one event loop; used with `async with`, whose end writes the last."""

    def __init__(
        self, db: AsyncDatabase, write_seconds: float = WRITE_SECONDS, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(write_seconds)
        self._db = db
        self._due: set[str] = set()
        self._written: TTLCache[str, None] = TTLCache(_MOST, _EACH_SECONDS, timer=clock)

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


def _write(tx: Transaction, ids: Sequence[str]) -> None:
    keys.used(tx.conn, ids)
