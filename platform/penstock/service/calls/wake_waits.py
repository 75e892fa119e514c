"""Wake waits: calls whose version is asleep in a pool wait for its turn, and say so in Postgres while they do."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from uuid import uuid4

import structlog

from penstock.domain.api_errors import Unavailable
from penstock.domain.limits.equal_share import may_take
from penstock.service.calls import call_refusals
from penstock.service.calls.worker_directory import WorkerDirectory
from penstock.service.core.periodic_writer import PeriodicWriter
from penstock.service.core.transaction import AsyncDatabase
from penstock.service.pools import wants
from penstock.settings.calls import CallSettings

log = structlog.get_logger()

_WRITE_SECONDS: Final = 1.0


class WakeWaits(PeriodicWriter):
    """Those of one process, on one event loop; used with `async with`, whose end drops what it wanted."""

    def __init__(self, db: AsyncDatabase, directory: WorkerDirectory, settings: CallSettings) -> None:
        super().__init__(_WRITE_SECONDS)
        self._db = db
        self._directory = directory
        self._settings = settings
        self._process = uuid4()
        self._began: dict[str, list[float]] = {}
        """When each call that waits began to, by queue; on the event loop's clock."""
        self._by_tenant: Counter[str] = Counter()
        self._noted = False
        self._turn = asyncio.Lock()

    async def awake(self, tenant: str, queue: str, model: str, deadline: float) -> None:
        """Return once a worker of this version takes calls; at once where one does, or no live pool may serve it.

        It waits as long as the pool's bound and a switch, but not beyond the deadline (on the event loop's clock), with
        so many others at most; of these places the last few are for tenants who have less than an equal share. Raises
        Unavailable (`asleep`) after that, and at once for a version that no call wakes.
        """
        if self._directory.serves(queue):
            return
        pooled = self._directory.pooled(queue)
        if pooled is None:
            return
        if not pooled.on_demand:
            raise call_refusals.not_on_demand(model, pooled.pool)
        if not may_take(tenant, self._by_tenant, self._by_tenant.total(), self._settings.wake_calls):
            raise call_refusals.too_many_wait(model, pooled.pool)
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout_at(min(began + pooled.most_seconds, deadline)):
                with self._waiting(tenant, queue, began):
                    await self.write()
                    while not self._directory.serves(queue) and self._directory.pooled(queue) is not None:
                        await self._directory.news()
        except TimeoutError:
            raise call_refusals.asleep(model, pooled.pool, loop.time() - began) from None

    @contextmanager
    def _waiting(self, tenant: str, queue: str, began: float) -> Iterator[None]:
        others = self._began.setdefault(queue, [])
        others.append(began)
        self._by_tenant[tenant] += 1
        try:
            yield
        finally:
            self._by_tenant[tenant] -= 1
            if not self._by_tenant[tenant]:
                del self._by_tenant[tenant]
            others.remove(began)
            if not others:
                del self._began[queue]

    async def write(self) -> None:
        """Say what is wanted now, if anything is or was."""
        async with self._turn:
            now = asyncio.get_running_loop().time()
            waited = {queue: now - min(began) for queue, began in self._began.items()}
            if not waited and not self._noted:
                return
            try:
                await self._db.run(wants.note, self._process, waited)
            except Unavailable as error:
                log.warning("wants_not_noted", queues=len(waited), error=error.message)
            else:
                self._noted = bool(waited)
