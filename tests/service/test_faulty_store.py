"""One failure anywhere in a batch's life, before a call or after it happened, changes nothing of what it gives.

Each transaction and each blob call of a whole life fails once: of the upload, the create, validation, a worker's drain
over the echo engine, assembly. Callers do what the product's do: the same again, or nothing until a lease ends.

Which calls fail, and in which of their two ways, is drawn; PENSTOCK_FAILURES=all has all of both, PENSTOCK_SEED others.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from service.desk import request
from service.failing import AWAY, FULL, FailingDatabase, FailingStore, Fault, install
from store.world import CHAT, World
from worker.engines import echo_engine

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import NoSpace, Unavailable
from penstock.domain.file import File
from penstock.domain.idempotency import Idempotency
from penstock.domain.work.batch import BatchState
from penstock.domain.work.holder import Holder
from penstock.domain.work.terms import Terms
from penstock.service.core.ids import fresh
from penstock.service.core.transaction import AsyncDatabase, Database
from penstock.service.intake import submit, upload
from penstock.service.intake.small_job_intake import SmallJobIntake
from penstock.service.lifecycle import dispatch, work
from penstock.service.views import batch_view
from penstock.settings import Settings
from penstock.store.batches import files
from penstock.store.engine import async_engine, sync_engine
from penstock_worker.admission.gate import Gate
from penstock_worker.engine.client import EngineClient
from penstock_worker.engine_context import EngineContext
from penstock_worker.io.batch_tasks import BatchTasks
from penstock_worker.runtime.beat import Beat
from penstock_worker.runtime.loop_thread import LoopThread
from penstock_worker.slices.run_context import RunContext
from penstock_worker.slices.slice_consumer import SliceConsumer

R = TypeVar("R")

CONTENT = b"\n".join(
    request(f"q{n}", body={"model": "echo", "messages": [{"role": "user", "content": f"say {n}"}]}) for n in range(1, 7)
)


@pytest.fixture(scope="module")
def engine(short_dir: Path) -> Iterator[EngineContext]:
    """The echo engine as a worker has it, for all lives."""
    settings = Settings()
    with LoopThread() as loop, echo_engine(short_dir / "faulty") as supervisor:
        client = EngineClient(socket=supervisor.launch.socket, generation=lambda: supervisor.generation)
        loop.run(client.__aenter__()).result()
        yield EngineContext(client, Gate(8), supervisor, loop, settings)
        loop.run(client.__aexit__(None, None, None)).result()


class House:
    """An API, an io worker and a gpu worker over one database and blob store that fail once."""

    def __init__(self, world: World, engine: EngineContext) -> None:
        settings, self.fault = world.settings, Fault()
        self.calls: list[str] = []
        self.world = world
        self.settings = settings
        self.blobs = Blobs(settings.blob_url)
        url = settings.database_url
        self.api = AsyncDatabase(async_engine(url, connections=1), lambda hints: None)
        self.db = Database(sync_engine(url, connections=4), lambda hints: None)
        FailingDatabase(self.api.engine.sync_engine, self.fault)
        FailingDatabase(self.db.engine, self.fault)
        self.worker = world.worker("echo")
        self.keeper = Holder(uuid.uuid4(), "io", None, "host", 1)
        world.db.run(work.register, self.keeper, "ready", 0)
        self.io = BatchTasks(self.db, self.blobs, Beat(self.db, self.keeper, settings), self.keeper, settings)
        bench = RunContext(self.db, self.blobs, engine, Beat(self.db, self.worker, settings), settings)
        self.drain = SliceConsumer(bench, self.worker, lambda hints: None)

    async def create(self) -> str:
        """A client uploads a file and creates a batch; told to come again, it does, under the same keys."""
        first, second = (Idempotency(uuid.uuid4().hex, bytes(32)) for _ in range(2))
        file = await self._again(lambda: self._upload(first))
        terms = Terms(CHAT)
        made = await self._again(
            lambda: self.api.run(submit.create_batch, "acme", file.id, terms, second, self.settings)
        )
        return made.id

    async def post(self) -> list[str]:
        """A client creates small jobs; their model is fed by the keeper alone, so that calls come in one order."""
        intake = SmallJobIntake(self.api, self.settings)
        terms, ids = Terms(CHAT), []
        for n in range(1, 4):
            once = Idempotency(uuid.uuid4().hex, bytes(32))
            body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": f"say {n}"}]}).encode()
            asks = [submit.JobLine(None, body, "")]
            made = await self._again(
                lambda asks=asks, once=once: submit.create_job(
                    self.api, self.blobs, intake, "acme", asks, None, terms, once, self.settings
                )
            )
            await intake.close()
            ids.append(made.id)
        return ids

    async def _again(self, call: Callable[[], Any]) -> Any:
        for _ in range(3):
            with suppress(Unavailable, NoSpace):
                return await call()
        raise AssertionError("one failure, and three tries were not enough")

    async def _upload(self, once: Idempotency) -> File:
        async with upload.Upload(self.api, self.blobs, "acme", 10_000) as sending:
            await sending.write(CONTENT)
            return await sending.publish(
                lambda tx, sealed: upload.publish_file(
                    tx,
                    sealed,
                    "acme",
                    id=fresh("file-"),
                    purpose="batch",
                    filename="in",
                    ttl=timedelta(days=1),
                    once=once,
                    settings=self.world.settings,
                )
            )

    def live(self, batch: str) -> None:
        """The workers' pollers and the keeper look until the batch has ended."""
        self.world.db.run(work.seen, self.worker)
        for _ in range(30):
            with suppress(Unavailable, NoSpace):
                while self.io.look():
                    pass
            with suppress(Unavailable):
                self.db.run(dispatch.feed_all, self.settings)
            with suppress(Unavailable):
                while self.drain.look():
                    pass
            if self.world.find(batch).ended:
                return
        raise AssertionError(f"{batch} does not end: {self.world.find(batch)}")

    def result(self, batch: str) -> tuple[list[Any], list[Any]]:
        """The lines of output and error file, without what differs between two askings."""
        found = self.world.find(batch)
        read = []
        for id in (found.output_file, found.error_file):
            file = id and self.world.db.run(lambda tx, id=id: files.get(tx.conn, "acme", id))
            read.append([_told(line) for line in self._read(file.blob_key).splitlines()] if file else [])
        return read[0], read[1]

    def _read(self, key: str) -> bytes:
        with suppress(Unavailable):
            return self.blobs.read(key)
        return self.blobs.read(key)

    def close(self, runner: asyncio.Runner) -> None:
        """Close the connections."""
        runner.run(self.api.close())
        self.db.close()


def _told(line: bytes) -> Any:
    answer = json.loads(line)
    body = answer["response"]["body"]
    return answer["custom_id"], answer["error"], answer["response"]["status_code"], body["choices"], body["usage"]


def struck(house: House, at: int, when: str, message: str, live: Callable[[], R]) -> R:
    """A life in which the failure came: one that had fewer calls than the one that was counted is lived again.

    Answers that come together are recorded together, so it may be a call more or less.
    """
    for _ in range(5):
        house.fault.set(at, when, message)
        result = live()
        house.calls = list(house.fault.calls)
        if at <= len(house.calls):
            house.fault.set()
            return result
    raise AssertionError(f"five lives had less than {at} calls")


def shortest(house: House, live: Callable[[], object]) -> list[str]:
    """The calls of the shortest of some lives: on a busy machine answers come apart, and are recorded apart."""
    lives = [house.calls]
    for _ in range(2):
        live()
        lives.append(house.calls)
    return min(lives, key=len)


def life(house: House, runner: asyncio.Runner, at: int = 0, when: str = "", message: str = "") -> tuple[Any, Any]:
    """A batch from upload to its files, with one failure, and the look that all is in order."""
    world = house.world

    def lived() -> tuple[str, Any]:
        batch = runner.run(house.create())
        house.live(batch)
        return batch, house.result(batch)

    batch, result = struck(house, at, when, message, lived)
    ended = world.find(batch)
    assert (ended.state, ended.total, ended.completed) == (BatchState.COMPLETED, 6, 6)
    world.check()
    unnamed = on_disk(world.settings) - named(world)
    assert not unnamed, f"no row and no intent names {unnamed}"
    made = world.one("select count(*) from batches where created_at >= :at", at=ended.created_at)
    assert made == 1, "a create that was sent twice made two batches"
    return result


def small_jobs(house: House, runner: asyncio.Runner, at: int = 0, when: str = "", message: str = "") -> list[Any]:
    """Small jobs from their POST to their ends in one bundle, with one failure; what their tenant is told."""
    world = house.world

    def lived() -> list[str]:
        ids = runner.run(house.post())
        for id in ids:
            house.live(id)
        return ids

    ids = struck(house, at, when, message, lived)
    world.check()
    views = [world.db.run(batch_view.view, "acme", "job", id, world.settings) for id in ids]
    assert all(view.batch.completed == 1 for view in views)
    assert world.one("select count(*) from batches where kind = 'job' and id >= :first", first=min(ids)) == 3
    return [_told(line) for view in views for line in view.results or ()]


def on_disk(settings: Settings) -> set[str]:
    """Keys of all blobs, and of those that are half written."""
    root = Path(settings.blob_url.removeprefix("file://"))
    return {str(path.relative_to(root)).partition("#")[0] for path in root.rglob("*") if path.is_file()}


def named(world: World) -> set[str]:
    """Keys that a row names."""
    return {row.key for row in world.rows("""
        select blob_key as key from files union all select blob_key from segments where blob_key is not null
        union all select index_key from files where index_key is not null
        union all select plan_key from batches where plan_key is not null
        union all select blob_key from intents""")}  # fmt: skip


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a server looks again soon."""
    monkeypatch.setattr("penstock_worker.runtime.patience._PAUSE_SECONDS", 0.01)


@pytest.mark.timeout(300)
def test_one_failure_at_any_call_of_a_batchs_life_changes_nothing_of_what_it_gives(
    world: World, engine: EngineContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(world, engine)
    install(monkeypatch, FailingStore(house.fault))
    began = time.monotonic()
    with asyncio.Runner() as runner:
        life(house, runner)  # what the engine remembers of a prompt counts as cached tokens from now on
        expected = life(house, runner)
        assert [line[0] for line in expected[0]] == [f"q{n}" for n in range(1, 7)]
        calls = shortest(house, lambda: life(house, runner))
        for number, call in enumerate(calls, 1):
            for when, message in _failures(number, call):
                try:
                    assert life(house, runner, number, when, message) == expected
                except BaseException as error:
                    error.add_note(f"call {number} ({call}) failed {when}: {message}")
                    raise
        house.close(runner)
    print(f"{len(calls)} calls of {len(set(calls))} kinds failed in {time.monotonic() - began:.0f} s")


@pytest.mark.timeout(300)
def test_one_failure_at_any_call_of_small_jobs_lives_changes_nothing_of_what_they_give(
    world: World, engine: EngineContext
) -> None:
    house = House(world, engine)
    with asyncio.Runner() as runner:
        small_jobs(house, runner)  # what the engine remembers of a prompt counts as cached tokens from now on
        expected = small_jobs(house, runner)
        assert len(expected) == 3
        for number, call in enumerate(shortest(house, lambda: small_jobs(house, runner)), 1):
            for when, message in _failures(number, call):
                try:
                    assert small_jobs(house, runner, number, when, message) == expected
                except BaseException as error:
                    error.add_note(f"call {number} ({call}) failed {when}: {message}")
                    raise
        house.close(runner)


def _failures(number: int, call: str) -> list[tuple[str, str]]:
    """How a call may fail: nothing of it happened, or all of it and nobody heard."""
    ways = [("before", AWAY if call.startswith("get") else FULL), ("after", AWAY)]
    if call == "transaction":
        ways = [("in the middle", ""), ("after", "")]
    if os.environ.get("PENSTOCK_FAILURES") == "all":
        return ways
    chance = random.Random(f"{os.environ.get('PENSTOCK_SEED', '1')} {number}")
    return [chance.choice(ways)] if chance.random() < 0.6 else []
