"""Passing over: a worker's claims leave a slot for other tenants, and hints that found none are said again in time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from store.world import MODEL, World

from penstock.domain.work import hint
from penstock.domain.work.hint import Hint
from penstock.domain.work.lane import Lane
from penstock.domain.work.slice import Claim
from penstock.service.lifecycle import dispatch
from penstock.settings import Settings
from penstock_worker.runtime.beat import Beat
from penstock_worker.slices.run_context import RunContext
from penstock_worker.slices.slice_consumer import SliceConsumer
from penstock_worker.slices.slice_run import SliceRun
from penstock_worker.slices.slice_slots import SliceSlot


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    one = World(database_url, Settings(database_url=database_url))
    yield one
    one.check()
    one.close()


@pytest.fixture
def said() -> list[Hint]:
    return []


@pytest.fixture
def drain(world: World, said: list[Hint]) -> SliceConsumer:
    """A worker's claims and slots; nothing is asked here, so there are no blobs and no engine."""
    holder = world.worker()
    nothing: Any = None
    return SliceConsumer(
        RunContext(world.db, nothing, nothing, Beat(world.db, holder, world.settings), world.settings),
        holder,
        said.extend,
    )


def claim(drain: SliceConsumer, lane: Lane) -> Claim | None:
    """What a hint for this lane gets."""
    assert drain.slice_slots.take(lane)
    assert drain._holder
    found = drain._claim(drain._holder, lane, SliceSlot(drain.slice_slots, lane), SliceRun(drain._context))
    if not found:
        drain.slice_slots.give(lane)
        drain.say_owed()
        return None
    return found[0]


def end(world: World, drain: SliceConsumer, one: Claim) -> None:
    """The slice is done, and its slot free."""
    world.finish(one)
    drain.slice_slots.give(one.lane, one.account)
    drain.say_owed()


@pytest.mark.parametrize(("lane", "most"), [(Lane.FLEX, 2), (Lane.STANDARD, 3), (Lane.PRIORITY, 4)])
def test_one_tenants_batches_leave_slots_of_each_lane_for_its_small_jobs_and_for_others(
    world: World, drain: SliceConsumer, lane: Lane, most: int
) -> None:
    world.batch(*[1] * 20, lane=lane)
    for _ in range(most):
        found = claim(drain, lane)
        assert found is not None
        assert found.tenant == "acme"
        world.db.run(dispatch.feed, MODEL, world.settings)
    assert claim(drain, lane) is None
    small = world.job(1, lane=lane)
    own = claim(drain, lane)
    assert own is not None
    assert own.batch == small, "its own small job passes its batch"
    world.job(1, lane=lane)
    assert claim(drain, lane) is None, "the last slot is for others"
    world.batch(1, lane=lane, tenant="globex")
    other = claim(drain, lane)
    assert other is not None
    assert other.tenant == "globex"
    assert not drain.slice_slots.take(lane)


def test_a_hint_that_found_only_a_full_tenants_work_is_said_again_when_that_gives_a_slot_back(
    world: World, drain: SliceConsumer, said: list[Hint]
) -> None:
    world.batch(*[1] * 4, lane=Lane.FLEX)
    first = claim(drain, Lane.FLEX)
    claim(drain, Lane.FLEX)
    assert first is not None
    assert claim(drain, Lane.FLEX) is None
    assert said == [], "it would only pass over the same tenant again"
    end(world, drain, first)
    assert said == [hint.generate(MODEL, Lane.FLEX)]
    assert claim(drain, Lane.FLEX) is not None


def test_what_is_left_of_a_full_tenants_work_is_claimed_as_its_slots_come_back(
    world: World, drain: SliceConsumer, said: list[Hint]
) -> None:
    world.batch(*[1] * 5, lane=Lane.FLEX)
    held = [claim(drain, Lane.FLEX), claim(drain, Lane.FLEX)]
    for _ in range(3):
        assert claim(drain, Lane.FLEX) is None
    for left in (2, 1, 0):
        done = held.pop(0)
        assert done
        end(world, drain, done)
        assert said == [hint.generate(MODEL, Lane.FLEX)], f"{left} are left"
        said.clear()
        held.append(claim(drain, Lane.FLEX))
    for one in held:
        assert one
        end(world, drain, one)
    assert len(said) == 2
    said.clear()
    assert claim(drain, Lane.FLEX) is None
    assert said == [], "nothing is left, and nothing more is owed"


def test_a_tenant_that_is_full_of_flex_still_gets_a_slot_for_urgent_work(world: World, drain: SliceConsumer) -> None:
    world.batch(*[1] * 4, lane=Lane.FLEX)
    claim(drain, Lane.FLEX)
    claim(drain, Lane.FLEX)
    urgent = world.batch(1, lane=Lane.PRIORITY)
    found = claim(drain, Lane.FLEX)
    assert found is not None
    assert found.batch == urgent


def test_work_that_was_promoted_counts_for_the_lane_where_it_is_claimed(world: World, drain: SliceConsumer) -> None:
    batch = world.batch(*[1] * 4, lane=Lane.FLEX)
    world.sql("update slices set promoted = true, lane_rank = 1 where batch = :batch", batch=batch)
    for _ in range(3):
        found = claim(drain, Lane.STANDARD)
        assert found is not None
        assert found.lane is Lane.STANDARD
    assert claim(drain, Lane.STANDARD) is None
