"""Intake: what small jobs need is looked up once a second, and what came meanwhile is counted all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from store.world import CHAT, MODEL, World

from penstock.domain.api_errors import NotFound, TooMany, Unavailable
from penstock.domain.work.batch import Batch
from penstock.domain.work.terms import Terms
from penstock.service.admin import models
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.service.intake import submit
from penstock.service.intake.small_job_intake import SmallJobIntake
from penstock.service.lifecycle import dispatch
from penstock.settings import Settings
from penstock.store.engine import async_engine


class Clock:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def with_intake(world: World, clock: Clock, use: Callable[[SmallJobIntake, Poster], Coroutine[Any, Any, None]]) -> None:
    """Run something with an intake and a way to post jobs to it."""

    async def run() -> None:
        db = AsyncDatabase(async_engine(world.settings.database_url, connections=2), world.said.extend)
        intake = SmallJobIntake(db, world.settings, clock=clock)
        try:
            await use(intake, Poster(db, intake, world))
        finally:
            await intake.close()
            await db.close()

    asyncio.run(run())


class Poster:
    """A tenant that posts one-line jobs."""

    def __init__(self, db: AsyncDatabase, intake: SmallJobIntake, world: World) -> None:
        self._db = db
        self._intake = intake
        self._world = world

    async def __call__(self, model: str = MODEL, tenant: str = "acme") -> Batch:
        asks = [submit.JobLine(None, b'{"max_tokens":100}', "")]
        nothing: Any = None
        return await submit.create_job(
            self._db, nothing, self._intake, tenant, asks, model, Terms(CHAT), None, self._world.settings
        )


def limit(world: World, clock: Clock, jobs: float) -> None:
    """Let each tenant have so many jobs' tokens queued."""

    async def use(intake: SmallJobIntake, post: Poster) -> None:
        world.cancel((await post()).id, "job")

    with_intake(world, clock, use)
    tokens = world.one("select max(tokens) from slices")
    world.settings = world.settings.model_copy(update={"max_queued_tokens": int(jobs * tokens)})


async def fed_in_time(world: World, *jobs: Batch) -> None:
    """Wait until they are ready and said."""
    for _ in range(1_000):
        if all(world.states(job.id) == ["ready"] for job in jobs) and world.said:  # said after the commit
            return
        await asyncio.sleep(0.01)
    raise AssertionError("they are not fed")


def test_jobs_are_fed_just_after_they_were_answered(world: World, clock: Clock) -> None:
    world.worker()

    async def use(intake: SmallJobIntake, post: Poster) -> None:
        await fed_in_time(world, *[await post() for _ in range(5)])

    with_intake(world, clock, use)
    assert 1 <= len(world.said) <= 5


def test_jobs_that_come_while_a_feed_fails_are_fed_next(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.worker()
    feed, fed = dispatch.feed, list[str]()

    async def use(intake: SmallJobIntake, post: Poster) -> None:
        def fails_once(tx: Transaction, model: str, settings: Settings) -> None:
            fed.append(model)
            if len(fed) == 1:
                intake.feed(MODEL)
                raise Unavailable("the database is away")
            feed(tx, model, settings)

        monkeypatch.setattr(dispatch, "feed", fails_once)
        await fed_in_time(world, await post())

    with_intake(world, clock, use)
    assert fed == [MODEL] * 2


def test_the_limit_of_queued_tokens_holds_within_a_second_too(world: World, clock: Clock) -> None:
    limit(world, clock, 3.5)

    async def use(intake: SmallJobIntake, post: Poster) -> None:
        for _ in range(3):
            await post()
        with pytest.raises(TooMany):
            await post()
        for row in world.rows("select id from batches where state = 'in_progress'"):
            world.cancel(row.id, "job")
        with pytest.raises(TooMany):
            await post()
        clock.now += 1.1
        await post()

    with_intake(world, clock, use)


def test_one_tenants_tokens_are_not_anothers(world: World, clock: Clock) -> None:
    world.tenant("globex")
    limit(world, clock, 1.5)

    async def use(intake: SmallJobIntake, post: Poster) -> None:
        await post()
        with pytest.raises(TooMany):
            await post()
        await post(tenant="globex")

    with_intake(world, clock, use)


def test_a_model_that_was_unknown_is_known_as_soon_as_it_is_added(world: World, clock: Clock) -> None:
    async def use(intake: SmallJobIntake, post: Poster) -> None:
        with pytest.raises(NotFound):
            await post("new")
        world.db.run(models.add, "new")
        assert (await post("new")).model == "new"

    with_intake(world, clock, use)


def test_a_like_job_is_told_the_same_for_a_second(world: World, clock: Clock) -> None:
    async def use(intake: SmallJobIntake, post: Poster) -> None:
        first = await intake.seen(await post())
        assert first.waiting is not None
        world.worker()
        second = await post()
        again = await intake.seen(second)
        assert (again.batch, again.waiting) == (second, first.waiting)
        clock.now += 1.1
        later = (await intake.seen(await post())).waiting
        assert later is not None
        assert later.reason == "earlier", "a worker serves it now, and those go first that came before"

    with_intake(world, clock, use)
