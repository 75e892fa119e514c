"""Version calls: how many calls each version had, how many failed and were slow, for the guard of its aliases."""

from __future__ import annotations

from penstock.service.calls.call_counts import CallCounts
from penstock.service.core.periodic_writer import WRITE_SECONDS
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.store.models import outcomes


class VersionCalls(CallCounts[str, tuple[int, int, int]]):
    """One process's counts by queue, on one event loop; used with `async with`, whose end writes the last."""

    def __init__(self, db: AsyncDatabase, write_seconds: float = WRITE_SECONDS) -> None:
        super().__init__(db, _add, "version_calls_lost", write_seconds)

    def count(self, queue: str, *, failed: bool, slow: bool) -> None:
        """One call ended."""
        calls, errors, late = self._counts.get(queue, (0, 0, 0))
        self._counts[queue] = calls + 1, errors + failed, late + slow


def _add(tx: Transaction, counts: dict[str, tuple[int, int, int]]) -> None:
    outcomes.add_calls(tx.conn, counts)
