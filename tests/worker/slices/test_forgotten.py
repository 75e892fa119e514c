"""A lease that its holder does not name is given back by the beat, unless its claim is answered just then."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from store.two import until_done_or_blocked
from store.world import World

from penstock.settings import Settings
from penstock_worker.runtime.beat import Beat, now


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    one = World(database_url, Settings(database_url=database_url))
    yield one
    one.check()
    one.close()


def test_a_lease_that_nobody_names_is_given_back_at_the_second_beat(world: World) -> None:
    batch, holder = world.batch(), world.worker()
    world.claimed(holder)
    beat = Beat(world.db, holder, world.settings)
    beat.once()
    assert world.states(batch) == ["running"], "its claim may still be on its way"
    beat.once()
    assert world.states(batch) == ["queued"]


def test_a_lease_whose_claim_may_be_under_way_is_not_given_back(world: World) -> None:
    batch, holder = world.batch(), world.worker()
    world.claimed(holder)
    beat = Beat(world.db, holder, world.settings)
    beat.once()
    with beat.claims:  # a claim whose commit was not heard of is asked for again
        beat.once()
        assert world.states(batch) == ["running"]
    beat.once()
    assert world.states(batch) == ["queued"]


def test_a_claim_that_is_answered_during_a_beat_is_not_given_back_by_it(world: World) -> None:
    batch, holder = world.batch(), world.worker()
    claim = world.claimed(holder)
    beat = Beat(world.db, holder, world.settings)
    beat.once()
    with ThreadPoolExecutor(1) as pool:
        with world.db.engine.begin() as other:
            other.execute(text("select from workers where id = :id for update"), {"id": holder.id})
            beating = pool.submit(beat.once)
            assert until_done_or_blocked(world, beating), "the beat has looked at its grips, and waits"
            gripped = beat.holding(claim.lease, now())
            gripped.__enter__()
        beating.result(10)
    gripped.__exit__(None, None, None)
    assert world.states(batch) == ["running"]
