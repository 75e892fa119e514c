"""Ensemble calls: how many calls went to each member, and how many failed, for whoever looks at an ensemble."""

from __future__ import annotations

from penstock.domain.ensembles.ensemble import ChosenMember
from penstock.service.calls.call_counts import CallCounts
from penstock.service.core.periodic_writer import WRITE_SECONDS
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.store.models import ensembles


class EnsembleCalls(CallCounts[tuple[int, str], tuple[int, int]]):
    """One process's counts, on one event loop; used with `async with`, whose end writes the last."""

    def __init__(self, db: AsyncDatabase, write_seconds: float = WRITE_SECONDS) -> None:
        super().__init__(db, _add, "ensemble_calls_lost", write_seconds)

    def count(self, chosen: ChosenMember, *, failed: bool) -> None:
        """One call ended."""
        calls, failures = self._counts.get((chosen.ensemble_id, chosen.label), (0, 0))
        self._counts[chosen.ensemble_id, chosen.label] = calls + 1, failures + failed


def _add(tx: Transaction, counts: dict[tuple[int, str], tuple[int, int]]) -> None:
    ensembles.add_calls(tx.conn, counts)
