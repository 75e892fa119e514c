"""Call usage: what waiting calls used, summed in memory and written every few seconds.

Each call counts at most once: what a process holds when it is killed, or can't write, is lost. Lines of batches are
counted exactly, in the rows that record them; a call leaves no row, and must not wait for one.
"""

from __future__ import annotations

from penstock.domain.accounts.tokens import Usage
from penstock.service.calls.call_counts import CallCounts
from penstock.service.core.periodic_writer import WRITE_SECONDS
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.store.accounts import prices, usage

Sums = dict[tuple[str, str], tuple[int, Usage]]


class CallUsage(CallCounts[tuple[str, str], tuple[int, Usage]]):
    """One process's sums by tenant and model, on one event loop; used with `async with`, whose end writes the last."""

    def __init__(self, db: AsyncDatabase, write_seconds: float = WRITE_SECONDS) -> None:
        super().__init__(db, add, "call_usage_lost", write_seconds)

    def count(self, tenant: str, model: str, used: Usage) -> None:
        """One call was answered."""
        calls, before = self._counts.get((tenant, model), (0, Usage()))
        self._counts[tenant, model] = calls + 1, before + used


def add(tx: Transaction, sums: Sums) -> None:
    """Add to the present hour, at present prices of tokens; the GPU time of calls is not measured."""
    valid = prices.valid(tx.conn, sorted({model for _, model in sums}))
    for (tenant, model), (calls, used) in sorted(sums.items(), key=lambda item: item[0]):
        cost = valid[model].tokens(used) if model in valid else 0
        usage.add_calls(tx.conn, tenant, model, calls, used, cost)
