"""Arrivals: what comes at the same time shares a statement, and nothing else: not its tenant, its end or its error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from service.statements import Sent, heard
from store.world import CHAT, MODEL, World

from penstock.domain.api_errors import Unavailable
from penstock.domain.work.lane import Lane
from penstock.domain.work.new_batch import NewBatch, NewJob
from penstock.domain.work.slice import Cut
from penstock.domain.work.terms import Terms
from penstock.formats import plan
from penstock.service.core.ids import fresh
from penstock.service.intake.insert_batcher import InsertBatcher

Body = Callable[[InsertBatcher, Sent], Awaitable[None]]


def run(url: str, body: Body) -> None:
    """Run something with the arrivals of a process, and the statements that it sends."""

    async def main() -> None:
        async with heard(url) as (db, sent):
            arrivals = InsertBatcher(db)
            try:
                await body(arrivals, sent)
            finally:
                await arrivals.close()

    asyncio.run(main())


def job(text: str, tenant: str = "acme", metadata: dict[str, str] | None = None, more: int = 0) -> NewJob:
    line = b'{"text":"%b"}' % text.encode() + bytes(more)
    cut = Cut(MODEL, 0, len(framed := plan.frame(1, line)), 1, 1, 1, 10)
    lane = Lane.PRIORITY if tenant == "acme" else Lane.FLEX
    terms = Terms(CHAT, lane, metadata={"text": text} | (metadata or {}))
    return NewJob(NewBatch(fresh("job_"), tenant, "job", terms, timedelta(days=1)), cut, framed)


def test_those_that_come_at_once_share_statements_and_keep_what_is_their_own(world: World) -> None:
    world.tenant("other")
    jobs = [job(f"text {n}", "other" if n % 3 else "acme") for n in range(150)]

    async def body(arrivals: InsertBatcher, sent: Sent) -> None:
        made = await asyncio.gather(*(arrivals.insert(one) for one in jobs))
        assert len(sent) == 2  # a hundred at most in one
        for one, batch in zip(jobs, made, strict=True):
            assert (batch.id, batch.tenant, batch.lane, batch.metadata) == (
                one.batch.id, one.batch.tenant, one.batch.terms.lane, one.batch.terms.metadata,
            )  # fmt: skip
            assert batch.deadline - batch.created_at == one.batch.window

    run(world.settings.database_url, body)
    kept = {row.batch: row for row in world.rows("select * from slices")}
    assert len(kept) == len(jobs)
    for one in jobs:
        row, lane = kept[one.batch.id], one.batch.terms.lane
        assert (row.tenant, row.lane, row.lane_rank) == (one.batch.tenant, lane, lane.rank)
        assert (bytes(row.inline), row.state, row.tokens) == (one.inline, "queued", 10)


def test_one_that_comes_alone_waits_for_nobody_and_the_next_shares_with_those_meanwhile(world: World) -> None:
    async def body(arrivals: InsertBatcher, sent: Sent) -> None:
        first = asyncio.create_task(arrivals.insert(job("first")))
        await sent.begun.wait()
        await asyncio.gather(first, *(arrivals.insert(job(f"meanwhile {n}")) for n in range(20)))
        assert len(sent) == 2

    run(world.settings.database_url, body)
    assert world.one("select count(*) from batches") == 21


def test_large_ones_share_no_statement(world: World) -> None:
    async def body(arrivals: InsertBatcher, sent: Sent) -> None:
        await asyncio.gather(*(arrivals.insert(job(f"{n}", more=600_000)) for n in range(3)))
        assert len(sent) == 3

    run(world.settings.database_url, body)


def test_one_that_cannot_be_made_costs_the_others_nothing(world: World) -> None:
    jobs = [job(f"{n}", metadata={"note": "a \0 in it"} if n == 3 else None) for n in range(7)]

    async def body(arrivals: InsertBatcher, sent: Sent) -> None:
        made = await asyncio.gather(*(arrivals.insert(one) for one in jobs), return_exceptions=True)
        assert [isinstance(one, Exception) for one in made] == [n == 3 for n in range(7)]
        assert not isinstance(made[3], Unavailable)

    run(world.settings.database_url, body)
    assert world.one("select count(*) from batches") == 6


def test_one_whose_caller_left_before_its_turn_is_not_made(world: World) -> None:
    async def body(arrivals: InsertBatcher, sent: Sent) -> None:
        first = asyncio.create_task(arrivals.insert(job("first")))
        await sent.begun.wait()
        leaves, stays = (asyncio.create_task(arrivals.insert(job(text))) for text in ("leaves", "stays"))
        await asyncio.sleep(0)
        leaves.cancel()
        await asyncio.gather(first, stays)

    run(world.settings.database_url, body)
    assert {row.text for row in world.rows("select metadata->>'text' as text from batches")} == {"first", "stays"}


def test_all_hear_that_the_database_is_away() -> None:
    async def body(arrivals: InsertBatcher, sent: Sent) -> None:
        made = await asyncio.gather(*(arrivals.insert(job(f"{n}")) for n in range(5)), return_exceptions=True)
        assert all(isinstance(one, Unavailable) for one in made)

    run("postgresql://nobody@127.0.0.1:1/none", body)


def test_a_process_that_ends_leaves_nobody_waiting(world: World) -> None:
    async def body(arrivals: InsertBatcher, sent: Sent) -> None:
        waiting = [asyncio.create_task(arrivals.insert(job(f"{n}"))) for n in range(200)]
        await sent.begun.wait()
        await arrivals.close()
        done, pending = await asyncio.wait(waiting, timeout=5)
        assert not pending
        assert all(one.cancelled() for one in done)

    run(world.settings.database_url, body)
