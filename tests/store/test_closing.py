"""Closing: however a batch comes to its end, it ends once, with its counts and its one event."""

from __future__ import annotations

import pytest
from store import as_holder
from store.world import World

from penstock.domain.api_errors import Conflict, LeaseLost, NotFound
from penstock.domain.work import hint
from penstock.domain.work.batch import Batch, BatchState
from penstock.service.admin import tally
from penstock.service.control import cancel
from penstock.service.lifecycle import dispatch, work
from penstock.service.results import assemble
from penstock.store.work import counts as tallied


def counts(batch: Batch) -> tuple[int, int, int]:
    """Total, completed, failed."""
    return batch.total, batch.completed, batch.failed


def test_each_batch_that_ends_is_counted_once_for_metrics_however_many_keepers_count(world: World) -> None:
    world.drain(world.batch(2))
    late = world.batch(1)
    world.expire(late)
    world.assemble(late)
    assert [world.db.run(tally.ended) for _ in range(2)] == [2, 0]
    counted = world.db.run(lambda tx: tallied.read(tx.conn))
    assert counted["batches_ended/batch/standard/completed"] == counted["batches_ended/batch/standard/expired"] == 1
    assert counted["batches_late/standard"] == 1
    assert counted["cost/standard"] > 0
    for name, times in (("batch_seconds", 2), ("batch_validating_seconds", 2), ("batch_first_answer_seconds", 1)):
        assert sum(value for key, value in counted.items() if key.startswith(f"{name}/") and "sum" not in key) == times


def test_a_cancel_while_validating_ends_the_batch_at_once_with_nothing(world: World) -> None:
    batch = world.validating()
    assert world.cancel(batch).state is BatchState.CANCELLING
    ended = world.find(batch)
    assert ended.state is BatchState.CANCELLED
    assert counts(ended) == (0, 0, 0)
    assert ended.cancelling_at
    assert ended.cancelled_at
    assert world.events(batch) == ["batch.cancelled"]


def test_a_validation_that_was_cancelled_meanwhile_cannot_begin(world: World) -> None:
    batch = world.validating()
    found, lease = world.claim_batch(batch, "validate")
    world.cancel(batch)
    with pytest.raises(LeaseLost):
        world.db.run(world.begin, found, lease, (1,))
    assert world.slices(batch) == []


@pytest.mark.parametrize("ender", ["cancel", "expire"])
def test_whoever_validates_a_batch_that_is_closed_hears_of_it_in_the_next_beat(world: World, ender: str) -> None:
    batch = world.validating()
    _, lease = world.claim_batch(batch, "validate")
    getattr(world, ender)(batch)
    assert world.db.run(work.beat, world.keeper, [lease], world.settings).lost == {lease}
    assert world.one("select closed_as from leases where id = :id", id=lease) == "released"


def test_a_cancel_with_running_slices_waits_for_them(world: World) -> None:
    batch = world.batch(2, 2)
    worker = world.worker()
    claim = world.claimed(worker)
    world.flush(claim, 1, 1)
    assert world.cancel(batch).state is BatchState.CANCELLING
    assert world.states(batch) == ["running", "dropped"]
    assert world.claim(worker) is None
    world.flush(claim, 2, 2)  # what is in flight is kept
    world.db.run(as_holder.settle, claim)
    assert world.find(batch).state is BatchState.FINALIZING
    assert world.said[-1] == hint.assemble(batch)
    world.assemble(batch)
    ended = world.find(batch)
    assert ended.state is BatchState.CANCELLED
    assert counts(ended) == (4, 2, 2)
    assert ended.usage.total_tokens == 10


def test_a_cancel_without_running_slices_goes_straight_to_finalizing(world: World) -> None:
    batch = world.batch(2, 2)
    assert world.cancel(batch).state is BatchState.CANCELLING
    assert world.find(batch).state is BatchState.FINALIZING
    assert world.said[-1] == hint.assemble(batch)


def test_a_cancel_of_an_inline_job_ends_it_at_once(world: World) -> None:
    job = world.job(3)
    assert world.cancel(job, "job").state is BatchState.CANCELLING
    ended = world.find(job)
    assert ended.state is BatchState.CANCELLED
    assert counts(ended) == (3, 0, 3)
    assert world.events(job) == ["batch.cancelled"]


def test_a_cancelled_inline_job_ends_with_its_last_running_slice(world: World) -> None:
    job = world.job(3)
    claim = world.claimed(world.worker())
    world.flush(claim, 1, 1)
    world.cancel(job, "job")
    assert world.find(job).state is BatchState.CANCELLING
    world.db.run(as_holder.settle, claim)
    ended = world.find(job)
    assert ended.state is BatchState.CANCELLED
    assert counts(ended) == (3, 1, 2)


def test_a_cancel_twice_is_the_same_answer(world: World) -> None:
    batch = world.batch(1)
    world.claimed(world.worker())
    first = world.cancel(batch)
    assert world.cancel(batch) == first
    world.reap(batch)
    assert world.cancel(batch).state is BatchState.FINALIZING
    world.assemble(batch)
    assert world.cancel(batch).state is BatchState.CANCELLED
    assert world.events(batch) == ["batch.cancelled"]


def test_a_cancel_of_what_ended_otherwise_is_a_conflict(world: World) -> None:
    batch = world.batch(1)
    world.finish(world.claimed(world.worker()))
    with pytest.raises(Conflict) as finalizing:
        world.cancel(batch)
    assert (finalizing.value.current, finalizing.value.wanted) == ("finalizing", "cancelled")
    world.assemble(batch)
    with pytest.raises(Conflict) as completed:
        world.cancel(batch)
    assert completed.value.current == "completed"
    assert completed.value.headers["x-should-retry"] == "false"


def test_a_cancel_of_an_expiring_batch_is_a_conflict(world: World) -> None:
    batch = world.batch(1)
    world.claimed(world.worker())
    assert world.expire(batch)
    with pytest.raises(Conflict):
        world.cancel(batch)


def test_another_tenant_or_kind_cannot_cancel(world: World) -> None:
    batch = world.batch(1)
    with pytest.raises(NotFound):
        world.db.run(cancel.cancel, "stranger", "batch", batch)
    with pytest.raises(NotFound):
        world.cancel(batch, "job")
    assert world.find(batch).state is BatchState.IN_PROGRESS


def test_the_deadline_expires_a_validating_batch_at_once(world: World) -> None:
    batch = world.validating()
    assert world.expire(batch)
    ended = world.find(batch)
    assert ended.state is BatchState.EXPIRED
    assert counts(ended) == (0, 0, 0)
    assert ended.expired_at
    assert ended.cancelling_at is None
    assert world.events(batch) == ["batch.expired"]


def test_the_deadline_closes_a_batch_in_progress_and_keeps_what_was_answered(world: World) -> None:
    batch = world.batch(2, 1)
    claim = world.claimed(world.worker())
    world.flush(claim, 1, 1)
    assert world.expire(batch)
    assert world.find(batch).state is BatchState.IN_PROGRESS  # closing, its slice still runs
    assert world.states(batch) == ["running", "dropped"]
    world.db.run(as_holder.settle, claim)
    world.assemble(batch)
    ended = world.find(batch)
    assert ended.state is BatchState.EXPIRED
    assert counts(ended) == (3, 1, 2)


def test_the_deadline_closes_a_paused_batch(world: World) -> None:
    batch = world.batch(1)
    world.sql("update batches set state = 'paused' where id = :id", id=batch)
    assert world.expire(batch)
    assert world.find(batch).state is BatchState.FINALIZING


def test_a_deadline_that_was_moved_meanwhile_does_not_expire_the_batch(world: World) -> None:
    batch = world.batch(1)
    world.overdue(batch)
    assert batch in world.db.run(dispatch.overdue)
    world.sql("update batches set deadline = clock_timestamp() + interval '1 h' where id = :id", id=batch)
    assert not world.db.run(cancel.expire, batch)
    assert world.find(batch).finish_as is None


def test_a_batch_expires_once(world: World) -> None:
    batch = world.batch(1)
    world.claimed(world.worker())
    assert world.expire(batch)
    assert world.db.run(dispatch.overdue) == []
    assert not world.db.run(cancel.expire, batch)


def test_the_last_settle_finalizes(world: World) -> None:
    batch = world.batch(1, 1)
    worker = world.worker()
    one, other = world.claimed(worker), world.claimed(worker)
    world.finish(one)
    assert world.find(batch).state is BatchState.IN_PROGRESS
    world.finish(other)
    found = world.find(batch)
    assert (found.state, found.finish_as) == (BatchState.FINALIZING, BatchState.COMPLETED)
    assert world.said[-1] == hint.assemble(batch)
    world.assemble(batch)
    assert world.events(batch) == ["batch.completed"]


def test_the_last_settle_of_an_inline_job_completes_it(world: World) -> None:
    job = world.job(2)
    world.finish(world.claimed(world.worker()))
    ended = world.find(job)
    assert ended.state is BatchState.COMPLETED
    assert counts(ended) == (2, 2, 0)
    assert world.events(job) == ["batch.completed"]


def test_the_last_settle_of_a_paused_batch_moves_it_on(world: World) -> None:
    batch = world.batch(1)
    claim = world.claimed(world.worker())
    world.pause(batch)
    world.finish(claim)
    assert world.find(batch).state is BatchState.FINALIZING
    world.assemble(batch)
    assert world.find(batch).state is BatchState.COMPLETED


def test_a_paused_batch_with_something_left_stays(world: World) -> None:
    batch = world.batch(1, 1)
    claim = world.claimed(world.worker())
    world.pause(batch)
    world.finish(claim)
    assert world.find(batch).state is BatchState.PAUSED
    assert world.db.run(dispatch.stuck) == []
    assert not world.db.run(dispatch.move_on, batch)
    assert sorted(world.states(batch)) == ["done", "queued"]


def test_the_keeper_moves_a_paused_batch_on_that_nobody_moved(world: World) -> None:
    batch = world.batch(1)
    claim = world.claimed(world.worker())
    world.flush(claim, 1, 1)
    world.pause(batch)
    world.sql("update slices set state = 'done', lease = null where batch = :id", id=batch)
    world.sql("update leases set closed_at = now(), closed_as = 'settled' where id = :id", id=claim.lease)
    assert world.db.run(dispatch.stuck) == [batch]
    assert world.db.run(dispatch.move_on, batch)


def test_a_reap_in_a_closing_batch_drops_the_slice_and_ends_it(world: World) -> None:
    batch = world.batch(2)
    world.claimed(world.worker())
    world.cancel(batch)
    assert world.reap(batch) == 1
    assert world.states(batch) == ["dropped"]
    assert world.find(batch).state is BatchState.FINALIZING


def test_a_release_in_a_closing_batch_drops_the_slice_and_ends_it(world: World) -> None:
    batch = world.batch(2)
    claim = world.claimed(world.worker())
    world.cancel(batch)
    world.db.run(work.release, claim.lease)
    assert world.states(batch) == ["dropped"]
    assert world.find(batch).state is BatchState.FINALIZING


def test_an_assembly_whose_lease_was_reaped_cannot_end_the_batch(world: World) -> None:
    batch = world.batch(1)
    world.finish(world.claimed(world.worker()))
    found, lease = world.claim_batch(batch, "assemble")
    world.reap(batch)
    with pytest.raises(LeaseLost):
        world.db.run(assemble.commit, found, lease, BatchState.COMPLETED, None, None)
    world.assemble(batch)
    assert world.events(batch) == ["batch.completed"]


def test_work_that_is_given_up_fails_the_batch_with_a_reason(world: World) -> None:
    batch = world.validating()
    _, lease = world.claim_batch(batch, "validate")
    world.db.run(work.give_up, batch, lease)
    ended = world.find(batch)
    assert ended.state is BatchState.FAILED
    assert ended.error_count == 1
    assert ended.errors[0]["code"] == "internal_error"
    with pytest.raises(LeaseLost):
        world.db.run(work.give_up, batch, lease)
    assert world.events(batch) == ["batch.failed"]


def test_the_keeper_moves_a_batch_on_that_nobody_moved(world: World) -> None:
    batch = world.batch(1)
    claim = world.claimed(world.worker())
    world.flush(claim, 1, 1)
    # As a process leaves it that died between the settle and the move of an older version.
    world.sql("update slices set state = 'done', lease = null where batch = :id", id=batch)
    world.sql("update leases set closed_at = now(), closed_as = 'settled' where id = :id", id=claim.lease)
    assert world.db.run(dispatch.stuck) == [batch]
    assert world.db.run(dispatch.move_on, batch)
    assert world.find(batch).state is BatchState.FINALIZING
    assert world.db.run(dispatch.stuck) == []


def test_every_way_to_end_writes_exactly_one_event(world: World) -> None:
    cancelled, expired, done, job = world.batch(1), world.validating(), world.batch(1), world.job(1)
    world.cancel(cancelled)
    world.expire(expired)
    for batch in (cancelled, expired, done, job):
        world.drain(batch)
        world.db.run(dispatch.move_on, batch)
        world.db.run(cancel.expire, batch)
        world.reap(batch)
    kinds = [world.events(batch) for batch in (cancelled, expired, done, job)]
    assert kinds == [["batch.cancelled"], ["batch.expired"], ["batch.completed"], ["batch.completed"]]
