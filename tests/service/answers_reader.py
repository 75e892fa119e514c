"""A reader that follows a batch's answers page by page, as `GET /v1/batches/{id}/results` serves them."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from service.desk import Desk

from penstock.service.core.transaction import AsyncDatabase
from penstock.service.results import answer_page
from penstock.store.engine import async_engine


class CountingDatabase(AsyncDatabase):
    """One that says how often it was asked."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.looks: queue.SimpleQueue[None] = queue.SimpleQueue()

    async def autocommit(self, *args: Any, **kwargs: Any) -> Any:
        """As before, and counted once it is done."""
        result = await super().autocommit(*args, **kwargs)
        self.looks.put(None)
        return result

    def looked(self, times: int) -> None:
        """Return once it was asked so often, since the last time."""
        for _ in range(times):
            self.looks.get(timeout=30)

    def forget(self) -> None:
        """Count from here on."""
        with suppress(queue.Empty):
            while True:
                self.looks.get_nowait()


class Library:
    """Where readers read: one event loop and its connections. For one thread at a time."""

    def __init__(self, desk: Desk, db: CountingDatabase, runner: asyncio.Runner) -> None:
        self._desk = desk
        self.db = db
        self._runner = runner

    def read(
        self, batch: str, after: int, limit: int, *, tenant: str = "acme", patience_seconds: float = 0.0
    ) -> tuple[list[bytes], int, bool]:
        """One page: its lines, the cursor behind it, and whether more may come."""

        async def read() -> tuple[bytes, answer_page.AnswerPage]:
            page = await answer_page.page(
                self.db, tenant, batch, after=after, limit=limit, patience_seconds=patience_seconds
            )
            pieces = [piece async for piece in answer_page.stream(self.db, self._desk.blobs, page)]
            return b"".join(pieces), page

        data, page = self._runner.run(read())
        return data.splitlines(keepends=True), page.last, page.incomplete


@contextmanager
def library(desk: Desk) -> Iterator[Library]:
    """One that is closed at the end."""
    with asyncio.Runner() as runner:
        db = CountingDatabase(async_engine(desk.world.settings.database_url, connections=2), lambda hints: None)
        yield Library(desk, db, runner)
        runner.run(db.close())


class Reader:
    """Reads so many lines at a time, and keeps what it has."""

    def __init__(self, library: Library, batch: str, limit: int) -> None:
        self._library = library
        self._batch = batch
        self.limit = limit
        self.lines: list[bytes] = []
        self.incomplete = True

    def read(self) -> None:
        """One page more; the cursor must count what came."""
        lines, last, self.incomplete = self._library.read(self._batch, len(self.lines), self.limit)
        assert len(lines) <= self.limit
        self.lines += lines
        assert last == len(self.lines)

    def read_all(self) -> None:
        """On to the end of a batch that has ended."""
        while self.incomplete:
            before = len(self.lines)
            self.read()
            assert len(self.lines) > before or not self.incomplete
