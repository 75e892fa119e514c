"""A process's database, and the statements that it sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event

from penstock.service.core.transaction import AsyncDatabase
from penstock.store.engine import async_engine


class Sent(list[str]):
    """Statements as they are sent."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()

    def __call__(self, *said: Any) -> None:
        self.append(said[2])
        self.begun.set()


@asynccontextmanager
async def heard(url: str) -> AsyncIterator[tuple[AsyncDatabase, Sent]]:
    """A database that says no hints, and what is sent to it."""
    engine, sent = async_engine(url, connections=2), Sent()
    event.listen(engine.sync_engine, "before_cursor_execute", sent)
    db = AsyncDatabase(engine, lambda hints: None)
    try:
        yield db, sent
    finally:
        await db.close()
