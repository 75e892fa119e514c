"""Callers and the fleet remember what Postgres said: for seconds while it answers, for longer while it is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from uuid import UUID

import pytest
from api.live import arrive
from faults.proxy import Proxy
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import event

from penstock.domain.api_errors import Unauthorized, Unavailable
from penstock.domain.calls.ingress import Load
from penstock.domain.work.holder import Holder
from penstock.service.admin import keys, models
from penstock.service.calls import ingresses
from penstock.service.calls.api_key_cache import ApiKeyCache
from penstock.service.calls.worker_directory import WorkerDirectory
from penstock.service.core.transaction import AsyncDatabase, Database
from penstock.settings import Settings
from penstock.store.engine import async_engine, sync_engine


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Place:
    """A process's memory, its database over a network that can be cut, and the statements that it sent."""

    callers: ApiKeyCache
    directory: WorkerDirectory
    clock: Clock
    network: Proxy
    statements: list[str]


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    database = Database(sync_engine(database_url, connections=2), lambda hints: None)
    yield database
    database.close()


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings(database_url=database_url, ingress_gone_seconds=60.0)


@asynccontextmanager
async def place(settings: Settings) -> AsyncIterator[Place]:
    where = conninfo_to_dict(settings.database_url)
    with Proxy(_socket(where)) as network:
        engine = async_engine(f"postgresql://postgres@127.0.0.1:{network.port}/{where['dbname']}", 4)
        db, clock, statements = AsyncDatabase(engine, lambda hints: None), Clock(), []

        @event.listens_for(engine.sync_engine, "before_cursor_execute")
        def note(conn: object, cursor: object, statement: str, *_: object) -> None:
            statements.append(statement)

        callers = ApiKeyCache(db, settings, clock=clock)
        directory = WorkerDirectory(db, settings, clock=clock, chance=Random(0))
        try:
            yield Place(callers, directory, clock, network, statements)
        finally:
            await callers.close()
            await db.close()


def _socket(where: dict[str, object]) -> Path:
    return Path(str(where["host"])) / ".s.PGSQL.5432"


def run(settings: Settings, body: Callable[[Place], Awaitable[None]]) -> None:
    async def main() -> None:
        async with place(settings) as here:
            await body(here)

    asyncio.run(main())


def test_a_key_in_use_is_looked_up_once_in_its_cache_time_and_dies_within_it(db: Database, settings: Settings) -> None:
    id, key = db.run(keys.create, "tenant", "test")

    async def body(here: Place) -> None:
        for _ in range(100):
            assert (await here.callers.access_of(key)).tenant == "tenant"
        assert len(here.statements) == 1
        db.run(keys.revoke, "tenant", id)
        here.clock.now += settings.key_cache_seconds + 0.1
        with pytest.raises(Unauthorized):
            await here.callers.access_of(key)

    run(settings, body)


def test_a_key_is_looked_up_again_before_anybody_has_to_wait_for_that(db: Database, settings: Settings) -> None:
    _, key = db.run(keys.create, "tenant", "test")

    async def body(here: Place) -> None:
        await here.callers.access_of(key)
        for _ in range(3):
            here.clock.now += 0.6 * settings.key_cache_seconds
            assert (await here.callers.access_of(key)).tenant == "tenant"
            await here.callers._ask(keys.hash_of(key))
        assert len(here.statements) == 4

    run(settings, body)


def test_a_wrong_key_is_looked_up_once_a_second_however_often_it_comes(db: Database, settings: Settings) -> None:
    async def body(here: Place) -> None:
        for _ in range(2):
            answers = await asyncio.gather(
                *(here.callers.access_of("sk-penstock-wrong") for _ in range(200)), return_exceptions=True
            )
            assert {type(answer) for answer in answers} == {Unauthorized}
        assert len(here.statements) == 1
        here.clock.now += 1.1
        with pytest.raises(Unauthorized):
            await here.callers.access_of("sk-penstock-wrong")
        assert len(here.statements) == 2

    run(settings, body)


def test_however_many_wrong_keys_come_one_statement_at_a_time_looks_them_up(db: Database, settings: Settings) -> None:
    _, right = db.run(keys.create, "tenant", "test")

    async def body(here: Place) -> None:
        wrong = [here.callers.access_of(f"sk-penstock-wrong-{n}") for n in range(1_000)]
        answers = await asyncio.gather(*wrong, here.callers.access_of(right), return_exceptions=True)
        assert {type(answer) for answer in answers[:-1]} == {Unauthorized}
        assert answers[-1].tenant == "tenant"
        assert len(here.statements) == 3  # of 500 keys at most

    run(settings, body)


def test_many_wrong_keys_a_second_are_answered_late_and_a_few_at_once(db: Database, settings: Settings) -> None:
    async def body(here: Place) -> None:
        async def refused() -> float:
            began = time.monotonic()
            with pytest.raises(Unauthorized):
                await here.callers.refuse()
            return time.monotonic() - began

        took = await asyncio.gather(*(refused() for _ in range(60)))
        assert [seconds < 0.9 for seconds in took] == [True] * 20 + [False] * 40
        here.clock.now += 1.1
        assert await refused() < 0.9

    run(settings, body)


def test_whose_a_key_was_is_remembered_without_a_look(db: Database, settings: Settings) -> None:
    _, key = db.run(keys.create, "tenant", "test")

    async def body(here: Place) -> None:
        assert here.callers.whose(key) is None
        await here.callers.access_of(key)
        here.clock.now += 3_600
        assert here.callers.whose(key) == "tenant"
        assert here.callers.whose("x" * 10_000) is None
        assert len(here.statements) == 1

    run(settings, body)


def test_a_key_that_was_wrong_a_second_ago_may_be_right_now(db: Database, settings: Settings) -> None:
    async def body(here: Place) -> None:
        key = "sk-penstock-that-will-be-made-soon"
        with pytest.raises(Unauthorized):
            await here.callers.access_of(key)
        await asyncio.to_thread(db.run, keys.ensure_bootstrap, key)
        here.clock.now += 1.1
        assert (await here.callers.access_of(key)).tenant == keys.BOOTSTRAP_TENANT

    run(settings, body)


@pytest.mark.parametrize("how", ["cut", "hang"])
def test_while_postgres_is_away_keys_seen_lately_stay_valid_for_a_while(
    db: Database, settings: Settings, how: str
) -> None:
    _, key = db.run(keys.create, "tenant", "test")

    async def body(here: Place) -> None:
        await here.callers.access_of(key)
        getattr(here.network, how)()
        here.clock.now += settings.key_cache_seconds + 1
        async with asyncio.timeout(4):
            for _ in range(20):
                assert (await here.callers.access_of(key)).tenant == "tenant"
        here.clock.now += settings.key_stale_seconds
        with pytest.raises(Unavailable):
            await here.callers.access_of(key)
        here.network.heal()
        here.clock.now += 10

        async with asyncio.timeout(30):
            while True:
                try:
                    assert (await here.callers.access_of(key)).tenant == "tenant"
                    break
                except Unavailable:
                    here.clock.now += 10
                    await asyncio.sleep(0.05)

    run(settings, body)


def open_door(db: Database, settings: Settings, calls: int = 0) -> Holder:
    holder = arrive(db, settings, "gpu", "tiny")
    db.run(ingresses.announce, holder, f"http://127.0.0.1:1/{holder.id}", ["tiny", "adapter"], 8, settings)
    pulse(db, holder, calls)
    return holder


def pulse(db: Database, holder: Holder, calls: int = 0) -> None:
    db.run(ingresses.pulse, holder, Load(True, calls, 0, 8, "", 0.0))


def age(db: Database, worker: UUID) -> None:
    """Its last load report was long ago."""
    with db.engine.begin() as conn:
        conn.exec_driver_sql("update workers set load_reported_at = now() - interval '1 hour' where id = %s", (worker,))


def test_a_fleet_keeps_its_last_table_while_postgres_is_away_and_waits_for_pulses_afterwards(
    db: Database, settings: Settings
) -> None:
    holder = open_door(db, settings)

    async def body(here: Place) -> None:
        directory = here.directory
        await directory.refresh()
        assert directory.choose("adapter", None).worker == holder.id
        here.network.cut()
        here.clock.now += 3_600
        await directory.refresh()
        assert directory.choose("tiny", None).worker == holder.id
        assert await directory.knows("tiny")
        with pytest.raises(Unavailable):
            await directory.knows("none")
        age(db, holder.id)
        here.network.heal()
        await directory.refresh()
        assert directory.choose("tiny", None).worker == holder.id, "it could not pulse either"
        here.clock.now += settings.ingress_gone_seconds + 1
        await directory.refresh()
        assert directory.choose("tiny", None) is None, "it had its time to come back"

    run(settings, body)


def test_a_model_that_is_new_is_found_at_once(db: Database, settings: Settings) -> None:
    async def body(here: Place) -> None:
        await here.directory.refresh()
        assert not await here.directory.knows("new")
        await asyncio.to_thread(db.run, models.add, "new")
        here.clock.now += 1
        assert await here.directory.knows("new")

    run(settings, body)


def test_a_worker_that_became_ready_since_the_last_look_is_found_at_once(db: Database, settings: Settings) -> None:
    async def body(here: Place) -> None:
        await asyncio.to_thread(db.run, models.add, "tiny")
        await here.directory.refresh()
        holder = await asyncio.to_thread(open_door, db, settings)
        here.clock.now += 1
        target = await here.directory.target("tiny", 0.0)
        assert here.directory.choose(target.queue, None).worker == holder.id

    run(settings, body)


def test_calls_of_this_process_count_until_pulses_tell_of_them(db: Database, settings: Settings) -> None:
    one, other = open_door(db, settings), open_door(db, settings, calls=2)

    async def body(here: Place) -> None:
        directory = here.directory
        await directory.refresh()
        assert directory.choose("tiny", None).worker == one.id
        for _ in range(4):
            directory.sent(one.id)
        assert directory.choose("tiny", None).worker == other.id
        await directory.refresh()
        assert directory.choose("tiny", None).worker == other.id, "they are inside, whatever an old pulse says"
        for _ in range(4):
            directory.ended(one.id)
        await directory.refresh()
        assert directory.choose("tiny", None).worker == one.id

    run(settings, body)


def test_a_door_that_refused_is_left_alone_until_the_next_table_and_a_broken_one_for_longer(
    db: Database, settings: Settings
) -> None:
    holder = open_door(db, settings)

    async def body(here: Place) -> None:
        directory = here.directory
        await directory.refresh()
        directory.shut(holder.id)
        assert directory.choose("tiny", None) is None
        await directory.refresh()
        assert directory.choose("tiny", None) is not None
        for _ in range(3):
            directory.failed(holder.id, here.clock.now)
        await directory.refresh()
        assert directory.choose("tiny", None) is None
        here.clock.now += 5
        assert directory.choose("tiny", None) is not None, "one call tries"
        assert directory.choose("tiny", None) is None
        directory.worked(holder.id)
        assert directory.choose("tiny", None) is not None

    run(settings, body)
