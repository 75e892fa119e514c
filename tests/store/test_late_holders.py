"""Holders that come late: a settle under an old lease, and a beat that is on its way while its lease is reaped."""

from __future__ import annotations

from functools import partial

import pytest
from store import as_holder
from store.two import held, until_done_or_blocked
from store.world import World

from penstock.domain.api_errors import LeaseLost
from penstock.service.lifecycle import dispatch, work


def test_a_late_settle_does_not_end_a_slice_that_another_holds(world: World) -> None:
    batch = world.batch(2)
    late = world.claimed(world.worker())
    world.flush(late, 1, 1, 2)
    world.reap(batch)
    world.db.run(dispatch.feed_all, world.settings)
    present = world.claimed(world.worker())
    with pytest.raises(LeaseLost):
        world.db.run(as_holder.settle, late)
    assert world.states(batch) == ["running"]
    world.db.run(as_holder.settle, present)
    assert world.states(batch) == ["done"]


def test_a_beat_that_has_not_committed_saves_its_lease_from_the_reap(world: World) -> None:
    batch, holder = world.batch(2), world.worker()
    claim = world.claimed(holder)
    world.lapse(batch)
    beat = partial(work.beat, holder=holder, held=[claim.lease], settings=world.settings)
    with held(world, beat) as (pool, first):
        reaping = pool.submit(world.db.run, dispatch.reap, batch)
        assert until_done_or_blocked(world, reaping), "the reap waits for the beat"
        first.go_on()
        assert reaping.result(30) == 0
    assert world.states(batch) == ["running"]
    world.finish(claim)
