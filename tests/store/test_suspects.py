"""Suspects: charged once for each death that they were in, only under the present lease, and by reap on trial."""

from __future__ import annotations

from functools import partial

import pytest
from store import as_holder
from store.world import World

from penstock.domain.api_errors import LeaseLost
from penstock.domain.work.slice import Claim
from penstock.service.lifecycle import dispatch, work


def again(world: World, batch: str) -> Claim:
    """The next claim of the batch's slice."""
    world.db.run(dispatch.feed_all, world.settings)
    return world.claimed(world.worker())


def test_a_death_charges_the_lines_in_flight_and_gives_the_slice_back_without_a_crash(world: World) -> None:
    batch = world.batch(5)
    claim = world.claimed(world.worker())
    world.flush(claim, 1, 1)
    world.db.run(as_holder.crash, claim, [2, 3])
    assert world.states(batch) in (["queued"], ["ready"])
    next_claim = again(world, batch)
    assert (next_claim.suspects, next_claim.crashes, next_claim.recorded) == ({2: 1, 3: 1}, 0, {1})


def test_a_crash_that_is_told_twice_is_charged_once(world: World) -> None:
    batch = world.batch(3)
    claim = world.claimed(world.worker())
    for _ in range(2):
        world.db.run(as_holder.crash, claim, [2])
    assert again(world, batch).suspects == {2: 1}


def test_a_holder_whose_lease_was_reaped_charges_nobody(world: World) -> None:
    batch = world.batch(3)
    claim = world.claimed(world.worker())
    world.reap(batch)
    world.db.run(as_holder.crash, claim, [2])
    with pytest.raises(LeaseLost):
        world.db.run(work.note_trial, claim, [2])
    next_claim = again(world, batch)
    assert (next_claim.suspects, next_claim.crashes) == ({}, 1)


def test_what_was_on_trial_when_its_holder_fell_silent_is_charged_by_the_reap(world: World) -> None:
    batch = world.batch(4)
    claim = world.claimed(world.worker())
    world.db.run(as_holder.crash, claim, [1, 2, 3])
    claim = again(world, batch)
    for _ in range(2):
        world.db.run(work.note_trial, claim, [2, 3])
    world.reap(batch)
    assert again(world, batch).suspects == {1: 1, 2: 2, 3: 2}


def test_a_trial_that_is_given_back_or_answered_charges_nobody(world: World) -> None:
    batch = world.batch(3)
    claim = world.claimed(world.worker())
    world.db.run(work.note_trial, claim, [1, 2])
    world.db.run(work.release, claim.lease)
    claim = again(world, batch)
    assert claim.suspects == {1: 1, 2: 1}
    world.db.run(as_holder.crash, claim, [])
    world.reap(batch)
    assert again(world, batch).suspects == {1: 1, 2: 1}


def test_nobody_is_charged_for_more_than_a_conviction_takes(world: World) -> None:
    batch = world.batch(2)
    claim = world.claimed(world.worker())
    for _ in range(6):
        world.db.run(as_holder.crash, claim, [2])
        claim = again(world, batch)
    assert claim.suspects == {2: 4}


def test_a_lease_that_was_found_gone_is_counted_with_its_answers(world: World) -> None:
    count = partial(world.one, "select coalesce((select value from counts where name = :name), 0)")
    world.db.run(work.lost, 7)
    world.db.run(work.lost, 0)
    assert (count(name="lease_lost"), count(name="answers_dropped")) == (2, 7)
