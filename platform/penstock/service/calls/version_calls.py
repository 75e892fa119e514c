"""Version calls: how many calls each version had, how many failed and were slow, for the guard of its aliases."""

from __future__ import annotations

import structlog

from penstock.domain.api_errors import Unavailable
from penstock.service.calls.periodic_writer import WRITE_SECONDS, PeriodicWriter
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.store.models import outcomes

log = structlog.get_logger()


class VersionCalls(PeriodicWriter):
    """One process's counts by queue, on one event loop; used with `async with`, whose end writes the last."""

    def __init__(self, db: AsyncDatabase, write_seconds: float = WRITE_SECONDS) -> None:
        super().__init__(write_seconds)
        self._db = db
        self._counts: dict[str, tuple[int, int, int]] = {}

    def count(self, queue: str, *, failed: bool, slow: bool) -> None:
        """One call ended."""
        calls, errors, late = self._counts.get(queue, (0, 0, 0))
        self._counts[queue] = calls + 1, errors + failed, late + slow

    async def write(self) -> None:
        """Write what was counted since the last time."""
        counts, self._counts = self._counts, {}
        if not counts:
            return
        try:
            await self._db.run(_add, counts)
        except Unavailable as error:
            log.warning("version_calls_lost", calls=sum(one[0] for one in counts.values()), error=error.message)


def _add(tx: Transaction, counts: dict[str, tuple[int, int, int]]) -> None:
    outcomes.add_calls(tx.conn, counts)
