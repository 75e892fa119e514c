"""Call usage: what waiting calls used, summed in memory and written every few seconds.

Each call counts at most once: what a process holds when it is killed, or can't write, is lost. Lines of batches are
counted exactly, in the rows that record them; a call leaves no row, and must not wait for one.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

import structlog

from penstock.domain.accounts.tokens import Usage
from penstock.domain.api_errors import Unavailable
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.store.accounts import prices, usage

log = structlog.get_logger()

_WRITE_SECONDS: Final = 5.0
Sums = dict[tuple[str, str], tuple[int, Usage]]


class CallUsage:
    """One process's sums by tenant and model, on one event loop; used with `async with`, whose end writes the last."""

    def __init__(self, db: AsyncDatabase, write_seconds: float = _WRITE_SECONDS) -> None:
        self._db = db
        self._write_seconds = write_seconds
        self._sums: Sums = {}
        self._writing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._writing = asyncio.create_task(self._write_on())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writing:
            self._writing.cancel()
            await asyncio.wait([self._writing])
        await self.write()

    def count(self, tenant: str, model: str, used: Usage) -> None:
        """One call was answered."""
        calls, before = self._sums.get((tenant, model), (0, Usage()))
        self._sums[tenant, model] = calls + 1, before + used

    async def write(self) -> None:
        """Write what was counted since the last time."""
        sums, self._sums = self._sums, {}
        if not sums:
            return
        try:
            await self._db.run(add, sums)
        except Unavailable as error:  # it may be written or not: again might be twice
            log.warning("call_usage_lost", calls=sum(calls for calls, _ in sums.values()), error=error.message)

    async def _write_on(self) -> None:
        while True:
            await asyncio.sleep(self._write_seconds)
            try:
                await self.write()
            except Exception as error:  # a bug of ours must not stop the counting for ever
                log.error("call_usage_broken", exc_info=error)


def add(tx: Transaction, sums: Sums) -> None:
    """Add to the present hour, at present prices of tokens; the GPU time of calls is not measured."""
    valid = prices.valid(tx.conn, sorted({model for _, model in sums}))
    for (tenant, model), (calls, used) in sorted(sums.items(), key=lambda item: item[0]):
        cost = valid[model].tokens(used) if model in valid else 0
        usage.add_calls(tx.conn, tenant, model, calls, used, cost)
