"""Dispatch: short ready lists for live workers, hints after the commit, and hints again if nobody came."""

from __future__ import annotations

from collections import Counter

import pytest
from store.world import MODEL, World

from penstock.domain.work import hint
from penstock.domain.work.lane import Lane
from penstock.service.core.transaction import Transaction
from penstock.service.lifecycle import dispatch


def ready(world: World) -> Counter[str]:
    """How many slices are ready, by lane."""
    return Counter(row.lane for row in world.rows("select lane from slices where state = 'ready'"))


def test_nothing_is_fed_without_a_live_worker(world: World) -> None:
    world.batch(1, 1)
    assert world.db.run(dispatch.feed_all, world.settings) == 0
    world.worker(state="starting")
    world.worker("other")
    gone = world.worker(state="draining")
    world.sql("update workers set state = 'ready', seen_at = now() - interval '21 s' where id = :id", id=gone.id)
    assert world.db.run(dispatch.feed_all, world.settings) == 0
    assert not ready(world)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_each_lane_is_filled_to_so_many_slices_for_each_live_worker(world: World, workers: int) -> None:
    for lane in Lane:
        world.batch(*[1] * 14, lane=lane)
    for _ in range(workers):
        world.worker()
    most = workers * world.settings.ready_per_worker
    assert ready(world) == dict.fromkeys(Lane, most)
    assert world.db.run(dispatch.feed_all, world.settings) == 0


def test_a_lane_is_fed_best_first(world: World) -> None:
    late = world.batch(1, 1, window="48h")
    soon = world.batch(1, 1, 1, window="1h")
    world.worker()
    assert world.states(soon) == ["ready"] * 3
    assert world.states(late) == ["ready", "queued"]


def test_a_claim_feeds_the_next(world: World) -> None:
    batch = world.batch(*[1] * 7)
    worker = world.worker()
    assert world.states(batch) == ["ready"] * 4 + ["queued"] * 3
    world.claimed(worker)
    assert world.states(batch) == ["running"] + ["ready"] * 4 + ["queued"] * 2
    world.claimed(worker)
    assert world.states(batch) == ["running"] * 2 + ["ready"] * 4 + ["queued"]


def test_however_many_are_claimed_before_one_settles_no_less_urgent_one_is_taken(world: World) -> None:
    world.batch(*[1] * 12)
    world.batch(1, lane=Lane.FLEX)
    worker = world.worker()
    assert {world.claimed(worker).lane for _ in range(12)} == {Lane.STANDARD}
    assert world.claimed(worker).lane is Lane.FLEX


def test_a_plans_commit_feeds_live_workers(world: World) -> None:
    world.worker()
    assert world.states(world.batch(1, 1)) == ["ready", "ready"]
    assert world.states(world.job(1)) == ["ready"]


def test_each_slice_that_becomes_ready_is_hinted_after_the_commit_most_urgent_first(world: World) -> None:
    world.batch(1, lane=Lane.FLEX)
    world.batch(1, 1, lane=Lane.PRIORITY)
    world.said.clear()
    world.worker()
    wanted = [Lane.PRIORITY, Lane.PRIORITY, Lane.FLEX]
    assert world.said == [hint.generate(MODEL, lane) for lane in wanted]


def test_a_rolled_back_feed_says_nothing(world: World) -> None:
    world.batch(1)
    world.worker(state="starting")
    world.sql("update workers set state = 'ready' where kind = 'gpu'")
    world.said.clear()

    def feed_and_fail(tx: Transaction) -> None:
        assert dispatch.feed(tx, MODEL, world.settings) == 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        world.db.run(feed_and_fail)
    assert world.said == []
    assert not ready(world)


def test_slices_of_a_paused_batch_are_not_fed(world: World) -> None:
    batch = world.batch(1)
    world.pause(batch)
    world.worker()
    assert world.states(batch) == ["queued"]
    world.resume(batch)
    assert world.states(batch) == ["ready"]


def test_slices_of_a_closing_batch_are_not_fed(world: World) -> None:
    batch = world.batch(1)
    world.sql("update batches set finish_as = 'expired' where id = :id", id=batch)  # its slices not yet dropped
    world.worker()
    assert world.states(batch) == ["queued"]
    assert world.db.run(dispatch.stuck) == [batch]


def test_a_slice_of_another_model_is_not_fed(world: World) -> None:
    world.worker("other")
    mine, other = world.batch(1), world.batch(1, model="other")
    assert world.states(mine) == ["queued"]
    assert world.states(other) == ["ready"]


def test_ready_slices_that_nobody_took_are_hinted_again_after_a_while(world: World) -> None:
    world.batch(1, 1)
    world.worker()
    world.said.clear()
    world.db.run(dispatch.hint_again, world.settings)
    assert world.said == []
    world.sql("update slices set ready_at = clock_timestamp() - interval '6 s'")
    assert world.db.run(dispatch.hint_again, world.settings) == 2
    assert world.said == [hint.generate(MODEL, Lane.STANDARD)] * 2
    world.said.clear()
    world.db.run(dispatch.hint_again, world.settings)
    assert world.said == []


def test_batches_that_wait_for_an_io_worker_are_hinted_again(world: World) -> None:
    waiting, held, done = world.validating(), world.validating(), world.batch(1)
    world.cancel(done)  # finalizing
    world.claim_batch(held, "validate")
    world.said.clear()
    again = "update batches set hinted_at = clock_timestamp() - interval '6 s'"
    world.db.run(dispatch.hint_again, world.settings)
    world.said.clear()
    world.db.run(dispatch.hint_again, world.settings)
    assert world.said == []
    world.sql(again)
    world.db.run(dispatch.hint_again, world.settings)
    assert sorted(world.said, key=lambda one: one.task) == [hint.assemble(done), hint.validate(waiting)]


def test_a_batch_whose_io_holder_fell_silent_is_hinted_at_once(world: World) -> None:
    batch = world.validating()
    world.db.run(dispatch.hint_again, world.settings)
    world.claim_batch(batch, "validate")
    world.reap(batch)
    world.said.clear()
    world.db.run(dispatch.hint_again, world.settings)
    assert world.said == [hint.validate(batch)]
