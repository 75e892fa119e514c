"""Ends: all who wait in one process cost one look, and each hears of its own end, error or leave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from service.statements import heard
from store.world import World

from penstock.domain.api_errors import Unavailable
from penstock.service.views.completion_waiter import CompletionWaiter

Body = Callable[[CompletionWaiter, list[str]], Awaitable[None]]


def run(url: str, body: Body) -> None:
    """Run something with the ends of a process, and the statements that it sends."""

    async def main() -> None:
        async with heard(url) as (db, looks):
            ends = CompletionWaiter(db)
            try:
                await body(ends, looks)
            finally:
                await ends.close()

    asyncio.run(main())


async def stays() -> bool:
    return False


async def leaves() -> bool:
    return True


def test_however_many_wait_it_is_one_look_after_the_other(world: World) -> None:
    batches = [world.batch(1) for _ in range(40)]

    async def body(ends: CompletionWaiter, looks: list[str]) -> None:
        waits = [
            asyncio.create_task(ends.wait("acme", "batch", batch, 30, stays)) for batch in batches for _ in range(5)
        ]
        began = time.monotonic()
        await asyncio.sleep(0.5)
        assert not any(wait.done() for wait in waits)
        for batch in batches:
            await asyncio.to_thread(world.drain, batch)
        await asyncio.gather(*waits)
        assert len(looks) <= 2 + (time.monotonic() - began) / 0.02

    run(world.settings.database_url, body)


def test_each_hears_of_its_own_end(world: World) -> None:
    first, second = world.batch(1), world.batch(1)

    async def body(ends: CompletionWaiter, _: list[str]) -> None:
        one = asyncio.create_task(ends.wait("acme", "batch", first, 30, stays))
        other = asyncio.create_task(ends.wait("acme", "batch", second, 30, stays))
        await asyncio.to_thread(world.drain, first)
        await one
        await asyncio.sleep(0.2)
        assert not other.done()
        await asyncio.to_thread(world.drain, second)
        await other

    run(world.settings.database_url, body)


@pytest.mark.parametrize(
    ("tenant", "kind", "known"), [("acme", "batch", False), ("other", "batch", True), ("acme", "job", True)]
)
def test_nobody_waits_for_what_it_does_not_have(world: World, tenant: str, kind: str, known: bool) -> None:
    id = world.batch(1) if known else "batch_nowhere"

    async def body(ends: CompletionWaiter, _: list[str]) -> None:
        await asyncio.wait_for(ends.wait(tenant, kind, id, 30, stays), 5)

    run(world.settings.database_url, body)


def test_a_wait_ends_with_its_time_or_with_its_caller_and_leaves_nothing_behind(world: World) -> None:
    batch = world.batch(1)

    async def body(ends: CompletionWaiter, looks: list[str]) -> None:
        began = time.monotonic()
        await ends.wait("acme", "batch", batch, 0.3, stays)
        assert time.monotonic() - began >= 0.3
        await asyncio.wait_for(ends.wait("acme", "batch", batch, 30, leaves), 5)
        assert ends._looking is not None
        await asyncio.wait_for(ends._looking, 5)  # a look that was due is over
        seen = len(looks)
        await asyncio.sleep(0.6)
        assert len(looks) == seen

    run(world.settings.database_url, body)


def test_looks_grow_apart_and_whoever_comes_brings_them_near_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, late = world.batch(1), world.batch(1)

    async def body(ends: CompletionWaiter, looks: list[str]) -> None:
        patient = asyncio.create_task(ends.wait("acme", "batch", batch, 30, stays))
        await asyncio.sleep(2.0)
        assert len(looks) <= 25  # one every 20 ms would be a hundred
        monkeypatch.setattr("penstock.service.views.completion_waiter.LONGEST_PAUSE_SECONDS", 10.0)
        monkeypatch.setattr("penstock.service.views.completion_waiter._GROWTH", 10.0)
        await asyncio.to_thread(world.drain, late)
        began = time.monotonic()
        await ends.wait("acme", "batch", late, 30, stays)
        assert time.monotonic() - began < 5  # the next look would have been ten seconds after the last
        patient.cancel()

    run(world.settings.database_url, body)


def test_a_database_that_is_away_is_said_to_all_who_wait_and_the_next_one_asks_anew(world: World) -> None:
    batch = world.batch(1)

    async def body(ends: CompletionWaiter, _: list[str]) -> None:
        for _ in range(2):
            waits = [ends.wait("acme", "batch", batch, 30, stays) for _ in range(3)]
            found = await asyncio.gather(*waits, return_exceptions=True)
            assert [type(one) for one in found] == [Unavailable] * 3

    run("postgresql://postgres@127.0.0.1:1/nothing", body)
