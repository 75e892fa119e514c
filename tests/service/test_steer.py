"""Steering: what waits of a batch is held, let go and moved at once; what runs goes on to its end."""

from __future__ import annotations

import pytest
from store.world import World

from penstock.domain.api_errors import BadRequest, Conflict, NotFound
from penstock.domain.work import hint
from penstock.domain.work.batch import Batch, BatchState
from penstock.domain.work.lane import Lane
from penstock.service.control import steer


def pause(world: World, batch: str, kind: str = "batch") -> Batch:
    return world.db.run(steer.pause, "acme", kind, batch)


def resume(world: World, batch: str, kind: str = "batch") -> Batch:
    return world.db.run(steer.resume, "acme", kind, batch, world.settings)


def change(world: World, batch: str, kind: str = "batch", **terms: object) -> Batch:
    return world.db.run(steer.change, "acme", kind, batch, world.settings, **terms)  # type: ignore[arg-type]


def test_a_paused_batch_starts_no_slice_and_what_runs_goes_on_to_its_end(world: World) -> None:
    worker = world.worker()
    batch = world.batch(2, 2, 2)
    claim = world.claimed(worker)
    assert pause(world, batch).state is BatchState.PAUSED
    assert world.states(batch) == ["running", "queued", "queued"]
    assert world.claim(worker) is None
    world.finish(claim)
    assert world.claim(worker) is None
    assert world.states(batch) == ["done", "queued", "queued"]
    assert world.find(batch).completed == 2


def test_what_a_holder_gives_back_while_its_batch_is_paused_stays_back(world: World) -> None:
    worker = world.worker()
    batch = world.batch(2)
    world.claimed(worker)
    pause(world, batch)
    world.reap(batch)
    assert world.claim(worker) is None
    resume(world, batch)
    assert world.claim(worker) is not None


def test_a_resumed_batch_is_fed_and_hinted_at_once(world: World) -> None:
    worker = world.worker()
    batch = world.batch(2, 2)
    pause(world, batch)
    world.said.clear()
    assert resume(world, batch).state is BatchState.IN_PROGRESS
    assert world.states(batch) == ["ready", "ready"]
    assert world.said == [hint.generate("tiny", Lane.STANDARD)] * 2
    assert world.claim(worker) is not None


def test_pausing_and_resuming_twice_is_the_same_answer(world: World) -> None:
    batch = world.batch(2)
    assert resume(world, batch).state is BatchState.IN_PROGRESS
    assert pause(world, batch) == pause(world, batch)
    assert resume(world, batch) == resume(world, batch)


def test_a_paused_batch_may_be_changed_and_cancelled_and_expires(world: World) -> None:
    first, other = world.batch(2), world.batch(2)
    for batch in (first, other):
        pause(world, batch)
        assert change(world, batch, lane=Lane.FLEX).state is BatchState.PAUSED
    assert world.cancel(first).state is BatchState.CANCELLING
    assert world.expire(other)
    for batch in (first, other):
        assert world.drain(batch).ended


def test_what_is_being_validated_can_not_be_paused_yet(world: World) -> None:
    batch = world.validating()
    for refused in (pause, resume):
        with pytest.raises(Conflict, match="is being validated"):
            refused(world, batch)
    assert world.drain(batch).state is BatchState.COMPLETED


def test_what_is_closing_or_has_ended_is_steered_no_more(world: World) -> None:
    worker = world.worker()
    ended, closing = world.batch(1), world.batch(1)
    world.claimed(worker), world.claimed(worker)
    world.cancel(closing)
    world.cancel(ended)
    world.drain(ended)
    for batch in (ended, closing):
        before = world.find(batch)
        for refused in (pause, resume, lambda world, batch: change(world, batch, lane=Lane.FLEX)):
            with pytest.raises(Conflict) as error:
                refused(world, batch)
            assert error.value.headers == {"x-should-retry": "false"}
        assert world.find(batch) == before


def test_what_ends_by_its_deadline_says_so(world: World) -> None:
    batch = world.batch(1)
    world.claimed(world.worker())
    world.expire(batch)
    with pytest.raises(Conflict, match="It is ending as expired and can't become paused"):
        pause(world, batch)
    with pytest.raises(Conflict, match="The batch is ending as expired"):
        change(world, batch, completion_window="30d")
    world.drain(batch)


def test_nobody_steers_what_is_anothers_or_of_another_kind(world: World) -> None:
    batch = world.batch(2)
    before = world.find(batch)
    for tenant, kind, id in (("globex", "batch", batch), ("acme", "job", batch), ("acme", "batch", "batch_none")):
        for refused in (
            lambda who: world.db.run(steer.pause, *who),
            lambda who: world.db.run(steer.resume, *who, world.settings),
            lambda who: world.db.run(steer.change, *who, world.settings, lane=Lane.FLEX),
        ):
            with pytest.raises(NotFound):
                refused((tenant, kind, id))
    assert world.find(batch) == before


def test_a_new_lane_moves_what_waits_before_others(world: World) -> None:
    worker = world.worker()
    first, other = world.batch(2, 2), world.batch(2, 2)
    assert change(world, other, lane=Lane.PRIORITY).lane is Lane.PRIORITY
    assert [world.claimed(worker).batch for _ in range(4)] == [other, other, first, first]
    assert {row.lane_rank for row in world.slices(other)} == {0}


def test_a_closer_deadline_goes_before_others_and_counts_from_the_creation(world: World) -> None:
    worker = world.worker()
    first, other = world.batch(2), world.batch(2)
    changed = change(world, other, completion_window="90m")
    assert (changed.deadline - changed.created_at).total_seconds() == 90 * 60
    assert changed.completion_window == "90m"
    assert [world.claimed(worker).batch for _ in range(2)] == [other, first]


def test_a_slice_that_runs_goes_by_the_new_lane_should_it_be_given_back(world: World) -> None:
    batch = world.batch(2)
    world.claimed(world.worker())
    change(world, batch, lane=Lane.FLEX)
    assert world.states(batch) == ["running"]
    world.reap(batch)
    assert [(row.lane, row.lane_rank) for row in world.slices(batch)] == [("flex", 2)]


def test_a_change_while_a_batch_is_validated_holds_for_its_slices(world: World) -> None:
    batch = world.validating()
    found, lease = world.claim_batch(batch, "validate")
    changed = change(world, batch, lane=Lane.PRIORITY, completion_window="2h")
    world.db.run(world.begin, found, lease, (2,))
    [slice] = world.slices(batch)
    assert (slice.lane, slice.lane_rank, slice.deadline) == ("priority", 0, changed.deadline)


def test_a_window_that_has_passed_or_is_none_changes_nothing(world: World) -> None:
    batch = world.batch(2)
    world.sql("update batches set created_at = created_at - interval '2 h' where id = :batch", batch=batch)
    before = world.find(batch)
    for window in ("90m", "soon", "31d"):
        with pytest.raises(BadRequest) as error:
            change(world, batch, lane=Lane.FLEX, completion_window=window)
        assert error.value.param == "completion_window"
    assert world.find(batch) == before


def test_metadata_is_replaced_and_what_is_not_named_stays(world: World) -> None:
    batch = world.batch(2)
    change(world, batch, metadata={"a": "1", "b": "2"})
    assert change(world, batch, metadata={"c": "3"}).metadata == {"c": "3"}
    assert change(world, batch, lane=Lane.FLEX).metadata == {"c": "3"}
    assert change(world, batch, metadata={}).metadata == {}
    assert world.find(batch).lane is Lane.FLEX


def test_an_inline_job_is_steered_as_a_batch_is(world: World) -> None:
    worker = world.worker()
    job = world.job(2)
    assert pause(world, job, "job").state is BatchState.PAUSED
    assert world.claim(worker) is None
    assert change(world, job, "job", lane=Lane.PRIORITY).lane is Lane.PRIORITY
    resume(world, job, "job")
    world.finish(world.claimed(worker, Lane.PRIORITY))
    assert world.find(job).state is BatchState.COMPLETED
