"""Leases: one holder a slice, in order of urgency; what a lost holder writes is refused."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from store import as_holder
from store.world import World, records, remaining

from penstock.domain.api_errors import LeaseLost
from penstock.domain.work.batch import BatchState
from penstock.domain.work.lane import Lane
from penstock.service.lifecycle import dispatch, work


def test_a_claim_takes_the_best_by_lane_then_deadline_then_id(world: World) -> None:
    late = world.batch(1, 1, window="48h")
    flex = world.batch(1, lane=Lane.FLEX, window="1h")
    soon = world.batch(1, window="24h")
    urgent = world.batch(1, lane=Lane.PRIORITY, window="72h")
    worker = world.worker()
    claims = [world.claimed(worker) for _ in range(5)]
    assert [claim.batch for claim in claims] == [urgent, soon, late, late, flex]
    assert claims[2].slice < claims[3].slice
    assert world.claim(worker) is None


def test_a_claim_takes_only_from_the_lanes_that_it_names(world: World) -> None:
    flex = world.batch(1, lane=Lane.FLEX)
    worker = world.worker()
    assert world.claim(worker, Lane.PRIORITY, Lane.STANDARD) is None
    assert world.claimed(worker, Lane.FLEX).batch == flex


def test_a_claim_takes_only_its_own_model(world: World) -> None:
    world.batch(1)
    world.worker()
    assert world.claim(world.worker("other")) is None


def test_a_nonce_that_is_repeated_gets_the_same_claim(world: World) -> None:
    world.batch(1, 1)
    worker, nonce = world.worker(), uuid.uuid4()
    first = world.claim(worker, nonce=nonce)
    assert first is not None
    assert world.claim(worker, nonce=nonce) == first
    assert world.one("select count(*) from leases where kind = 'slice'") == 1


def test_a_nonce_that_found_nothing_may_find_something_later(world: World) -> None:
    worker, nonce = world.worker(), uuid.uuid4()
    assert world.claim(worker, nonce=nonce) is None
    world.batch(1)
    assert world.claim(worker, nonce=nonce) is not None


def test_the_nonce_of_a_claim_that_was_lost_gets_nothing(world: World) -> None:
    batch = world.batch(1)
    worker, nonce = world.worker(), uuid.uuid4()
    assert world.claim(worker, nonce=nonce)
    world.reap(batch)
    world.worker()  # feeds: the slice is ready again
    assert world.claim(worker, nonce=nonce) is None
    assert world.states(batch) == ["ready"]


def test_two_claimers_never_get_the_same_slice(world: World) -> None:
    world.batch(*[1] * 24)
    workers = [world.worker() for _ in range(6)]

    def take_all(index: int) -> list[int]:
        taken = []
        while claim := world.claim(workers[index]):
            taken.append(claim.slice)
        return taken

    with ThreadPoolExecutor(6) as pool:
        taken = [slice for one in pool.map(take_all, range(6)) for slice in one]
    assert len(taken) == len(set(taken)) == 24


def test_a_reaped_lease_cannot_write_its_segment(world: World) -> None:
    batch = world.batch(2)
    claim = world.claimed(world.worker())
    world.reap(batch)
    with pytest.raises(LeaseLost):
        world.flush(claim, 1, 1)
    assert world.one("select count(*) from segments") == 0
    assert world.find(batch).completed == 0


def test_a_reaped_lease_cannot_settle(world: World) -> None:
    batch = world.batch(1)
    claim = world.claimed(world.worker())
    world.flush(claim, 1, 1)
    world.reap(batch)
    with pytest.raises(LeaseLost):
        world.db.run(as_holder.settle, claim)


def test_a_zombie_cannot_write_while_another_holds_the_slice(world: World) -> None:
    batch = world.batch(2)
    zombie = world.claimed(world.worker())
    world.flush(zombie, 1, 1)
    world.reap(batch)
    heir = world.claimed(world.worker())
    assert heir.slice == zombie.slice
    assert heir.recorded == {1}
    with pytest.raises(LeaseLost):
        world.flush(zombie, 2, 2)
    world.finish(heir)
    assert world.find(batch).completed == 2


def test_a_flush_of_a_lapsed_lease_that_nobody_reaped_is_accepted(world: World) -> None:
    batch = world.batch(1)
    claim = world.claimed(world.worker())
    world.lapse(batch)
    world.flush(claim, 1, 1)
    assert world.find(batch).completed == 1


def test_a_flush_that_is_repeated_counts_once(world: World) -> None:
    batch = world.batch(2)
    claim = world.claimed(world.worker())
    for _ in range(3):
        world.flush(claim, 1, 1)
    found = world.find(batch)
    assert (found.completed, found.failed, found.usage.total_tokens) == (1, 0, 5)
    assert world.one("select count(*) from segments") == 1


def test_a_flush_that_was_accepted_is_confirmed_even_after_the_lease_is_lost(world: World) -> None:
    batch = world.batch(2)
    claim = world.claimed(world.worker())
    world.flush(claim, 1, 1)
    world.reap(batch)
    world.flush(claim, 1, 1)  # no LeaseLost: its answer was lost, not its commit
    assert world.find(batch).completed == 1


def test_failed_lines_are_counted_apart_and_without_usage(world: World) -> None:
    batch = world.batch(3)
    claim = world.claimed(world.worker())
    mixed = records(claim, 1, 2) + records(claim, 3, failed=True)
    world.db.run(as_holder.flush, claim, 1, mixed, None)
    found = world.find(batch)
    assert (found.completed, found.failed, found.usage.input_tokens, found.usage.output_tokens) == (2, 1, 6, 4)


def test_a_beat_prolongs_what_it_names_and_reports_what_is_lost(world: World) -> None:
    lost_batch, kept_batch = world.batch(1), world.batch(1)
    worker = world.worker()
    lost, kept = world.claimed(worker), world.claimed(worker)
    assert (lost.batch, kept.batch) == (lost_batch, kept_batch)
    world.reap(lost_batch)
    world.lapse(kept_batch)
    beaten = world.db.run(work.beat, worker, [lost.lease, kept.lease], world.settings)
    assert (beaten.lost, beaten.closing, beaten.forgotten) == ({lost.lease}, {}, ())
    assert world.one("select expires_at > clock_timestamp() from leases where id = :id", id=kept.lease)
    assert world.rows("select from leases where closed_at is null and expires_at < clock_timestamp()") == []


def test_a_beat_cannot_prolong_a_lease_of_another_holder(world: World) -> None:
    batch = world.batch(1)
    owner, other = world.worker(), world.worker()
    claim = world.claimed(owner)
    world.lapse(batch)
    assert world.db.run(work.beat, other, [claim.lease], world.settings).lost == {claim.lease}
    assert world.one("select expires_at < clock_timestamp() from leases where id = :id", id=claim.lease)


def test_a_beat_hears_that_a_batch_is_closing(world: World) -> None:
    batch = world.batch(1)
    worker = world.worker()
    claim = world.claimed(worker)
    world.cancel(batch)
    beaten = world.db.run(work.beat, worker, [claim.lease], world.settings)
    assert beaten.closing == {claim.lease: BatchState.CANCELLED}


def test_a_lease_unnamed_since_before_the_last_beat_is_reported_forgotten(world: World) -> None:
    world.batch(1)
    worker = world.worker()
    claim = world.claimed(worker)
    first = world.db.run(work.beat, worker, [], world.settings)
    assert first.forgotten == ()  # it may have been claimed while the beat was on its way
    assert world.db.run(work.beat, worker, [], world.settings).forgotten == (claim.lease,)


def test_a_release_gives_back_without_penalty(world: World) -> None:
    batch = world.batch(2)
    claim = world.claimed(world.worker())
    world.flush(claim, 1, 1)
    world.db.run(work.release, claim.lease)
    (row,) = world.slices(batch)
    assert (row.state, row.lease, row.crashes) == ("queued", None, 0)
    assert world.one("select closed_as from leases where id = :id", id=claim.lease) == "released"
    world.db.run(work.release, claim.lease)  # again: nothing happens
    assert remaining(world.claimed(world.worker())) == [2]


def test_a_release_after_a_new_claim_leaves_the_new_holder_alone(world: World) -> None:
    batch = world.batch(1)
    old = world.claimed(world.worker())
    world.reap(batch)
    heir = world.claimed(world.worker())
    world.db.run(work.release, old.lease)
    assert world.slices(batch)[0].lease == heir.lease


def test_a_reap_counts_a_crash(world: World) -> None:
    batch = world.batch(1)
    claim = world.claimed(world.worker())
    assert world.reap(batch) == 1
    (row,) = world.slices(batch)
    assert (row.state, row.crashes) == ("queued", 1)
    assert world.one("select closed_as from leases where id = :id", id=claim.lease) == "reaped"


def test_a_reap_leaves_leases_alone_whose_time_is_not_over(world: World) -> None:
    batch = world.batch(1, 1)
    worker = world.worker()
    silent, alive = world.claimed(worker), world.claimed(worker)
    world.lapse(batch)
    world.db.run(work.beat, worker, [alive.lease], world.settings)
    assert world.db.run(dispatch.silent_batches) == [batch]
    assert world.db.run(dispatch.reap, batch) == 1
    assert {row.id: row.state for row in world.slices(batch)} == {silent.slice: "queued", alive.slice: "running"}


def test_a_settle_may_be_repeated(world: World) -> None:
    batch = world.batch(1, 1)
    claim = world.claimed(world.worker())
    world.flush(claim, 1, claim.first_line)
    world.db.run(as_holder.settle, claim)
    world.db.run(as_holder.settle, claim)
    assert sorted(world.states(batch)) == ["done", "ready"]


def test_a_settle_with_lines_missing_is_refused(world: World) -> None:
    batch = world.batch(2)
    claim = world.claimed(world.worker())
    world.flush(claim, 1, 1)
    with pytest.raises(LeaseLost):
        world.db.run(as_holder.settle, claim)
    assert world.states(batch) == ["running"]


def test_a_settle_with_lines_missing_is_taken_while_the_batch_is_closing(world: World) -> None:
    batch = world.batch(2)
    claim = world.claimed(world.worker())
    world.flush(claim, 1, 1)
    world.cancel(batch)
    world.db.run(as_holder.settle, claim)
    assert world.states(batch) == ["done"]
    assert world.find(batch).state is BatchState.FINALIZING


def test_lease_ids_only_grow(world: World) -> None:
    batch = world.batch(1)
    worker, seen = world.worker(), []
    for turn in range(6):
        claim = world.claimed(worker)
        seen.append(claim.lease)
        if turn % 2:
            world.reap(batch)
        else:
            world.db.run(work.release, claim.lease)
        world.db.run(work.mark, worker, "ready", world.settings)
    assert seen == sorted(set(seen))


def test_a_batchs_validation_has_one_holder_and_counts_its_attempts(world: World) -> None:
    batch = world.validating()
    nonce = uuid.uuid4()
    first = world.db.run(work.claim_batch, world.keeper, batch, "validate", nonce, world.settings)
    assert first is not None
    assert first[1].attempt == 1
    again = world.db.run(work.claim_batch, world.keeper, batch, "validate", nonce, world.settings)
    assert again is not None
    assert again[1] == first[1]
    assert world.db.run(work.claim_batch, world.keeper, batch, "validate", uuid.uuid4(), world.settings) is None
    world.reap(batch)
    second = world.db.run(work.claim_batch, world.keeper, batch, "validate", uuid.uuid4(), world.settings)
    assert second is not None
    assert second[1].attempt == 2
    with pytest.raises(LeaseLost):
        world.db.run(world.begin, first[0], first[1].lease, (1,))
    world.db.run(world.begin, second[0], second[1].lease, (1,))
    assert world.find(batch).state is BatchState.IN_PROGRESS


def test_an_unreadable_slice_fails_its_batch_at_the_third_time(world: World) -> None:
    batch = world.batch(1, 1)
    worker = world.worker()
    for _ in range(3):
        claim = world.claimed(worker)
        assert world.find(batch).finish_as is None
        world.db.run(work.unreadable, claim)
        world.db.run(work.mark, worker, "ready", world.settings)
    found = world.find(batch)
    assert (found.state, found.finish_as) == (BatchState.FINALIZING, BatchState.FAILED)
    assert world.states(batch) == ["dropped", "dropped"]
