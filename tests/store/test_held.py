"""Held slices: nothing of a paused batch is fed or claimed, whatever comes back meanwhile; and a move is at once."""

from __future__ import annotations

import pytest
from store import as_holder
from store.two import held, until_done_or_blocked
from store.world import MODEL, World

from penstock.domain.work.lane import LANES, Lane
from penstock.service.control import steer
from penstock.service.lifecycle import dispatch, work


def ready_of(world: World, batch: str) -> int:
    return world.states(batch).count("ready")


def test_a_paused_batch_leaves_the_ready_lists_to_the_next(world: World) -> None:
    batch, other = world.batch(*[1] * 6, window="1h"), world.batch(*[1] * 6)
    worker = world.worker()
    assert (ready_of(world, batch), ready_of(world, other)) == (4, 0)
    world.pause(batch)
    world.db.run(dispatch.feed, MODEL, world.settings)
    assert (ready_of(world, batch), ready_of(world, other)) == (0, 4)
    assert world.claimed(worker).batch == other


@pytest.mark.parametrize("how", ["release", "reap", "engine dies", "unreadable"])
def test_a_slice_that_is_given_back_while_its_batch_is_paused_stays_until_it_resumes(world: World, how: str) -> None:
    batch = world.batch(2)
    worker = world.worker()
    claim = world.claimed(worker)
    world.pause(batch)
    if how == "release":
        world.db.run(work.release, claim.lease)
    elif how == "reap":
        world.reap(batch)
    elif how == "engine dies":
        world.db.run(as_holder.crash, claim, [1])
    else:
        world.db.run(work.unreadable, claim)
    assert world.db.run(dispatch.feed, MODEL, world.settings) == 0
    assert world.states(batch) == ["queued"]
    assert world.claim(worker) is None
    world.resume(batch)
    assert world.claimed(worker).batch == batch


def test_what_runs_when_its_batch_is_paused_goes_on_to_its_end(world: World) -> None:
    batch = world.batch(1, 1)
    claim = world.claimed(world.worker())
    world.pause(batch)
    world.finish(claim)
    assert sorted(world.states(batch)) == ["done", "queued"]
    assert world.find(batch).completed == 1
    assert world.one("select done_at is not null from slices where id = :id", id=claim.slice)


def test_what_was_held_when_its_batch_ended_is_dropped(world: World) -> None:
    batch = world.batch(1, 1)
    world.pause(batch)
    world.cancel(batch)
    assert world.states(batch) == ["dropped", "dropped"]


def test_a_batch_that_moves_to_another_lane_is_fed_and_hinted_there_at_once(world: World) -> None:
    batch = world.batch(1, 1, lane=Lane.FLEX)
    worker = world.worker()
    world.said.clear()
    world.move(batch, Lane.PRIORITY)
    assert world.states(batch) == ["ready", "ready"]
    assert [hint.kwargs["lane"] for hint in world.said] == ["priority", "priority"]
    assert world.claimed(worker, Lane.PRIORITY).lane is Lane.PRIORITY


def test_a_nearer_deadline_goes_first_at_once(world: World) -> None:
    first, other = world.batch(*[1] * 6, window="24h"), world.batch(*[1] * 6, window="48h")
    worker = world.worker()
    assert ready_of(world, other) == 0
    world.move(other, window="1h")
    assert (ready_of(world, first), ready_of(world, other)) == (0, 4)
    assert world.claimed(worker).batch == other


def test_what_runs_keeps_its_hand_when_its_batch_moves_and_goes_by_the_new_lane_when_given_back(world: World) -> None:
    batch = world.batch(1)
    worker = world.worker()
    claim = world.claimed(worker)
    world.move(batch, Lane.FLEX)
    assert world.states(batch) == ["running"]
    world.db.run(work.release, claim.lease)
    world.db.run(dispatch.feed, MODEL, world.settings)
    assert world.claim(worker, Lane.PRIORITY, Lane.STANDARD) is None
    assert world.claimed(worker).lane is Lane.FLEX


def test_a_feed_passes_over_what_is_being_paused(world: World) -> None:
    batch = world.batch(1, 1)
    world.worker(state="starting")
    world.sql("update workers set state = 'ready' where kind = 'gpu'")
    with held(world, lambda tx: steer.pause(tx, "acme", "batch", batch)) as (pool, pausing):
        feeding = pool.submit(world.db.run, dispatch.feed, MODEL, world.settings)
        assert not until_done_or_blocked(world, feeding)
        assert feeding.result(30) == 0
        pausing.go_on()
    assert world.states(batch) == ["queued", "queued"]


def test_a_claim_passes_over_what_is_being_paused(world: World) -> None:
    batch, other = world.batch(1, window="1h"), world.batch(1, tenant="globex")
    worker = world.worker()
    with held(world, lambda tx: steer.pause(tx, "acme", "batch", batch)) as (pool, pausing):
        claiming = pool.submit(world.claim, worker)
        assert not until_done_or_blocked(world, claiming)
        assert claiming.result(30).batch == other
        pausing.go_on()
    assert world.states(batch) == ["queued"]


def test_a_pause_waits_for_a_claim_and_lets_it_run(world: World) -> None:
    batch = world.batch(1, 1)
    worker = world.worker()
    with held(world, lambda tx: work.claim(tx, worker, LANES, world.nonce(), world.settings)) as (pool, claiming):
        pausing = pool.submit(world.pause, batch)
        assert until_done_or_blocked(world, pausing)
        claiming.go_on()
        pausing.result(30)
    assert sorted(world.states(batch)) == ["queued", "running"]
