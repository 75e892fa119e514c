"""Ensemble calls: how many calls went to each member, and how many failed, for whoever looks at an ensemble."""

from __future__ import annotations

import structlog

from penstock.domain.api_errors import Unavailable
from penstock.domain.ensembles.ensemble import ChosenMember
from penstock.service.calls.periodic_writer import WRITE_SECONDS, PeriodicWriter
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.store.models import ensembles

log = structlog.get_logger()


class EnsembleCalls(PeriodicWriter):
    """One process's counts, on one event loop; used with `async with`, whose end writes the last."""

    def __init__(self, db: AsyncDatabase, write_seconds: float = WRITE_SECONDS) -> None:
        super().__init__(write_seconds)
        self._db = db
        self._counts: dict[tuple[int, str], tuple[int, int]] = {}

    def count(self, chosen: ChosenMember, *, failed: bool) -> None:
        """One call ended."""
        calls, failures = self._counts.get((chosen.ensemble_id, chosen.model), (0, 0))
        self._counts[chosen.ensemble_id, chosen.model] = calls + 1, failures + failed

    async def write(self) -> None:
        """Write what was counted since the last time."""
        counts, self._counts = self._counts, {}
        if not counts:
            return
        try:
            await self._db.run(_add, counts)
        except Unavailable as error:
            log.warning("ensemble_calls_lost", calls=sum(one[0] for one in counts.values()), error=error.message)


def _add(tx: Transaction, counts: dict[tuple[int, str], tuple[int, int]]) -> None:
    ensembles.add_calls(tx.conn, counts)
