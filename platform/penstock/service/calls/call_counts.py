"""Call counts: what is counted of waiting calls in memory, by something, and added up in the database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import structlog

from penstock.domain.api_errors import Unavailable
from penstock.service.core.periodic_writer import WRITE_SECONDS, PeriodicWriter
from penstock.service.core.transaction import AsyncDatabase, Transaction

log = structlog.get_logger()

Key = TypeVar("Key")
Count = TypeVar("Count", bound=tuple[Any, ...])


class CallCounts(PeriodicWriter, Generic[Key, Count]):
    """One process's counts, on one event loop; used with `async with`, whose end writes the last.

    Each count begins with its number of calls. `add` adds them up in a transaction, and `lost` is the event that the
    log tells where that can't be.
    """

    def __init__(
        self,
        db: AsyncDatabase,
        add: Callable[[Transaction, dict[Key, Count]], None],
        lost: str,
        write_seconds: float = WRITE_SECONDS,
    ) -> None:
        super().__init__(write_seconds)
        self._db, self._add, self._lost = db, add, lost
        self._counts: dict[Key, Count] = {}

    async def write(self) -> None:
        """Write what was counted since the last time."""
        counts, self._counts = self._counts, {}
        if not counts:
            return
        try:
            await self._db.run(self._add, counts)
        except Unavailable as error:  # it may be written or not: again might be twice
            log.warning(self._lost, calls=sum(one[0] for one in counts.values()), error=error.message)
