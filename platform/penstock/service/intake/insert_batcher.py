"""The insert batcher: small jobs that come while a statement is on its way share the next one.

So each costs its rows, and only a part of a statement and of the wait for the disk. One that comes alone waits for
nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from penstock.domain.api_errors import Unavailable
from penstock.domain.work.batch import Batch
from penstock.domain.work.new_batch import NewJob
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.store.work import small_jobs

_MOST_AT_ONCE: Final = 100
_MOST_BYTES_AT_ONCE: Final = 1024 * 1024

_Waiting = tuple[NewJob, asyncio.Future[Batch]]


class InsertBatcher:
    """One API process's, on its event loop."""

    def __init__(self, db: AsyncDatabase) -> None:
        self._db = db
        self._waiting: deque[_Waiting] = deque()
        self._inserting: asyncio.Task[None] | None = None

    async def insert(self, job: NewJob) -> Batch:
        """Make a job without an idempotency key; raise Unavailable (it may be there all the same).

        One whose caller leaves before its statement is sent is not made.
        """
        assert job.batch.once is None, "what is done once only looks for what is there, in one transaction"
        made: asyncio.Future[Batch] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, made))
        if self._inserting is None or self._inserting.done():
            self._inserting = asyncio.create_task(self._insert_while_any_waits())
        return await made

    async def close(self) -> None:
        """Make no more."""
        if self._inserting is not None:
            self._inserting.cancel()
            await asyncio.wait({self._inserting})
        for _, made in self._waiting:
            made.cancel()

    async def _insert_while_any_waits(self) -> None:
        while group := self._next():
            try:
                if not await self._inserted(group):
                    for one in group:
                        await self._inserted([one])
            finally:
                for _, made in group:
                    made.cancel()  # whoever was told nothing: this process ends

    def _next(self) -> list[_Waiting]:
        """Who shares the next statement; nobody who has left."""
        group: list[_Waiting] = []
        room = _MOST_BYTES_AT_ONCE
        while self._waiting and len(group) < _MOST_AT_ONCE and (not group or len(self._waiting[0][0].inline) <= room):
            job, made = self._waiting.popleft()
            if not made.done():
                group.append((job, made))
                room -= len(job.inline)
        return group

    async def _inserted(self, group: Sequence[_Waiting]) -> bool:
        """Make these jobs and tell their callers; False if there is one among several that can't be made: none is."""
        try:
            batches = await self._db.autocommit(_insert, [job for job, _ in group])
        except Exception as error:
            if len(group) > 1 and not isinstance(error, Unavailable):
                return False  # whose it is, shows when each is sent alone: that one's caller hears it
            for _, made in group:
                if not made.done():
                    made.set_exception(error)
        else:
            for (_, made), batch in zip(group, batches, strict=True):
                if not made.done():
                    made.set_result(batch)
        return True


def _insert(tx: Transaction, jobs: Sequence[NewJob]) -> list[Batch]:
    made = [batch for batch in small_jobs.insert(tx.conn, jobs) if batch]
    assert len(made) == len(jobs), "only an idempotency key can be taken"
    return made
