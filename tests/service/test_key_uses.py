"""A key's last use is written once a minute, however often and by however many processes it is used."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import event, text

from penstock.service.admin import keys
from penstock.service.calls.key_uses import KeyUses
from penstock.service.core.transaction import AsyncDatabase, Database
from penstock.store.engine import async_engine, sync_engine


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    database = Database(sync_engine(database_url, connections=2), lambda hints: None)
    yield database
    database.close()


def test_a_use_is_written_once_a_minute(db: Database, database_url: str) -> None:
    id, _ = db.run(keys.create, "acme", "used")
    now = [0.0]
    written: list[str] = []

    def last() -> object:
        return db.run(keys.get, id).last_used_at

    async def main() -> None:
        engine = async_engine(database_url, 2)
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *told: written.append(told[2]))
        pool = AsyncDatabase(engine, lambda hints: None)
        one, other = (KeyUses(pool, 3_600, clock=lambda: now[0]) for _ in range(2))
        for _ in range(100):
            one.note(id)
        assert last() is None, "nothing is written on the request's way"
        await one.write()
        first = last()
        assert first is not None
        assert len(written) == 1
        one.note(id)
        await one.write()
        assert len(written) == 1, "this process wrote it a moment ago"
        other.note(id)
        await other.write()
        assert last() == first, "another process did"
        db.run(lambda tx: tx.conn.execute(text("update api_keys set last_used_at = last_used_at - interval '61 s'")))
        now[0] = 61.0
        one.note(id)
        await one.write()
        again = last()
        assert again is not None
        assert again >= first
        await pool.close()

    asyncio.run(main())
