"""Call usage: what waiting calls used, summed in memory and written every few seconds.

Each call counts at most once: what a process holds when it is killed, or can't write, is lost. Lines of batches are
counted exactly, in the rows that record them; a call leaves no row, and must not wait for one.
"""

from __future__ import annotations

from penstock.domain.accounts.tokens import Usage
from penstock.domain.accounts.usage_report import MOST_KEYS
from penstock.service.calls.call_counts import CallCounts
from penstock.service.core.periodic_writer import WRITE_SECONDS
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.store.accounts import prices, usage

Whose = tuple[str, str, str]
"""Tenant, model, and API key: '' is none."""
Sums = dict[Whose, tuple[int, Usage]]
OfKeys = dict[str, tuple[int, Usage]]


class CallUsage(CallCounts[Whose, tuple[int, Usage]]):
    """One process's sums by tenant, model and key, on one event loop; used with `async with`, whose end writes them."""

    def __init__(self, db: AsyncDatabase, write_seconds: float = WRITE_SECONDS) -> None:
        super().__init__(db, add, "call_usage_lost", write_seconds)

    def count(self, tenant: str, model: str, api_key: str | None, used: Usage) -> None:
        """One call was answered."""
        whose = tenant, model, api_key or ""
        calls, before = self._counts.get(whose, (0, Usage()))
        self._counts[whose] = calls + 1, before + used


def add(tx: Transaction, sums: Sums) -> None:
    """Add to the present hour, at present prices of tokens; the GPU time of calls is not measured."""
    valid = prices.valid(tx.conn, sorted({model for _, model, _ in sums}))
    for (tenant, model), of_keys in _by_model(sums).items():
        for api_key, (calls, used) in sorted(_apart(tx, tenant, model, of_keys).items()):  # one order of locks for all
            cost = valid[model].tokens(used) if model in valid else 0
            usage.add_calls(tx.conn, tenant, model, calls, used, cost, api_key)


def _by_model(sums: Sums) -> dict[tuple[str, str], OfKeys]:
    found: dict[tuple[str, str], OfKeys] = {}
    for (tenant, model, api_key), one in sorted(sums.items(), key=lambda item: item[0]):
        found.setdefault((tenant, model), {})[api_key] = one
    return found


def _apart(tx: Transaction, tenant: str, model: str, of_keys: OfKeys) -> OfKeys:
    """Of very many keys the first count apart, the others together: a tenant's rows do not grow with its keys.

    Processes that write at once may exceed it a little.
    """
    had, found = usage.keys_of_hour(tx.conn, tenant, model), OfKeys()
    for api_key, (calls, used) in of_keys.items():
        counted = api_key if api_key in had or len(had) < MOST_KEYS else ""
        had.add(counted)
        before = found.get(counted, (0, Usage()))
        found[counted] = before[0] + calls, before[1] + used
    return found
