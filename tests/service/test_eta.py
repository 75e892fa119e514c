"""Foresight over real rows: what is left of a batch, what goes before it, and how fast its workers are."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from store.world import World

from penstock.domain.accounts.eta import Expectation
from penstock.domain.models.tuning import Tuning
from penstock.domain.models.version import Definition
from penstock.domain.work.holder import Holder
from penstock.domain.work.lane import Lane
from penstock.service.admin import keys, tally, tenants
from penstock.service.control import steer
from penstock.service.estimates import first_expectations, outlook
from penstock.service.models import tunings, versions
from penstock.store.work import counts

RATE = 10.0
"""Tokens a second, of each worker."""


def fast(world: World, model: str = "tiny", rate: float = RATE) -> Holder:
    """A worker that has measured itself."""
    holder = world.worker(model)
    world.sql("update workers set tokens_per_second = :rate where id = :id", rate=rate, id=holder.id)
    return holder


def expect(world: World, batch: str) -> Expectation:
    found = world.db.run(outlook.of, world.find(batch), world.settings).expected
    assert found is not None
    return found


def seconds(world: World, batch: str) -> float:
    """From now to the expected end, without the flush."""
    at = expect(world, batch).expected_at
    assert at is not None
    return (at - datetime.now(UTC)).total_seconds() - world.settings.flush_seconds


def about(wanted: float) -> object:
    return pytest.approx(wanted, abs=0.5)


def test_only_what_is_in_progress_is_expected(world: World) -> None:
    fast(world)
    validating, batch = world.validating(), world.batch(2)
    assert world.db.run(outlook.of, world.find(validating), world.settings).expected is None
    world.cancel(batch)
    world.drain(batch)
    assert world.db.run(outlook.of, world.find(batch), world.settings).expected is None


def test_what_is_not_known_says_why(world: World) -> None:
    batch = world.batch(2)
    assert expect(world, batch) == Expectation(reason="no_worker")
    worker = world.worker()
    assert expect(world, batch) == Expectation(reason="not_measured")
    world.sql("update workers set tokens_per_second = 5 where id = :id", id=worker.id)
    assert expect(world, batch).meets_deadline is True
    world.db.run(steer.pause, "acme", "batch", batch)
    assert expect(world, batch) == Expectation(reason="paused")
    world.db.run(steer.resume, "acme", "batch", batch, world.settings)
    world.sql("update workers set seen_at = now() - interval '21 s' where id = :id", id=worker.id)
    assert expect(world, batch) == Expectation(reason="no_worker")


def test_what_is_recorded_is_not_left(world: World) -> None:
    worker = fast(world)
    world.sql("update models set tokens_scale = 1")
    batch = world.batch(10, 10)  # 100 tokens each, by estimate
    assert seconds(world, batch) == about(20)
    world.flush(world.claimed(worker), 1, 1, 2, 3, 4, 5)
    assert seconds(world, batch) == about(15)


def test_its_own_settled_slices_say_what_estimates_are_worth_before_its_model_does(world: World) -> None:
    worker = fast(world)
    batch = world.batch(10, 10)
    world.sql("update models set tokens_scale = 3")
    assert seconds(world, batch) == about(60)
    world.finish(world.claimed(worker))  # 50 tokens, where 100 were estimated
    assert seconds(world, batch) == about(5)


def test_answers_of_a_running_slice_are_better_than_nothing(world: World) -> None:
    worker = fast(world)
    batch = world.batch(10)
    world.flush(world.claimed(worker), 1, 1, 2)  # 10 tokens, where 20 were estimated
    assert seconds(world, batch) == about(4)


def test_workers_add_up_and_one_that_has_not_measured_itself_counts_as_the_others_do(world: World) -> None:
    fast(world)
    batch = world.batch(20)
    assert seconds(world, batch) == about(20)
    fast(world)
    world.worker()
    assert seconds(world, batch) == about(20 / 3)


def test_more_urgent_lanes_and_earlier_deadlines_of_the_tenant_go_first(world: World) -> None:
    worker = fast(world)
    batch = world.batch(10)
    world.batch(10, lane=Lane.FLEX)
    world.batch(10, window="48h")
    assert seconds(world, batch) == about(10)
    world.batch(10, window="1h")
    assert seconds(world, batch) == about(20)
    urgent = world.batch(10, lane=Lane.PRIORITY)
    assert seconds(world, batch) == about(30)
    world.claimed(worker, Lane.PRIORITY)
    assert seconds(world, batch) == about(30)
    world.db.run(steer.pause, "acme", "batch", urgent)
    assert seconds(world, batch) == about(30)  # what runs goes on to its end
    world.reap(urgent)
    assert seconds(world, batch) == about(20)


def test_other_tenants_take_their_share_of_the_lane_by_weight(world: World) -> None:
    fast(world)
    batch, rival = world.batch(10), world.batch(100)
    world.db.run(keys.create, "globex", "test")
    world.sql("update batches set tenant = 'globex' where id = :id", id=rival)
    world.sql("update slices set tenant = 'globex' where batch = :id", id=rival)
    assert seconds(world, batch) == about(20)
    world.db.run(tenants.weigh, "globex", 0.5)
    assert seconds(world, batch) == about(15)
    found = expect(world, batch)
    assert found.latest_at is not None
    assert found.expected_at is not None
    assert (found.latest_at - found.expected_at).total_seconds() > 100 / RATE / 0.7


def test_a_deadline_that_can_not_be_met_is_said_at_once(world: World) -> None:
    fast(world, rate=0.01)
    batch = world.batch(100, window="24h")
    assert expect(world, batch).meets_deadline is False
    world.db.run(steer.change, "acme", "batch", batch, world.settings, completion_window="30d")
    assert expect(world, batch).meets_deadline is True


def test_a_batch_of_several_models_waits_for_the_slowest(world: World) -> None:
    fast(world)
    batch = world.batch(10, 20)
    [first, _] = world.slices(batch)
    world.sql("update slices set model = 'other' where id = :id", id=first.id)
    assert expect(world, batch) == Expectation(reason="no_worker")
    fast(world, "other", rate=1.0)
    assert seconds(world, batch) == about(100)


def test_an_inline_job_is_expected_from_its_creation(world: World) -> None:
    fast(world)
    job = world.job(2)
    found = expect(world, job)
    assert found.earliest_at is not None
    assert found.meets_deadline is True


def test_a_worker_that_has_not_measured_itself_is_as_fast_as_it_was_tuned_on_such_a_device(world: World) -> None:
    batch = world.batch(10, 10)  # 200 tokens by estimate
    world.sql("update models set tokens_scale = 1")
    worker = world.worker()
    asked = Definition("/m", "vllm", ("--max-num-seqs=64",))
    world.db.run(versions.serve, replace(worker, model="tiny"), asked, "digest")
    world.sql("update workers set device = 'A', state = 'ready' where id = :id", id=worker.id)

    def tuned(device: str, speed: float, definition: Definition, digest: str | None, *, chosen: bool = False) -> None:
        point = Tuning("tiny", definition, device, digest, chosen, speed)
        world.db.run(tunings.record, [point])

    tuned("B", 1.0, asked, "digest")
    tuned("A", 1.0, replace(asked, arguments=("--dtype=float32",)), "another")
    assert expect(world, batch) == Expectation(reason="not_measured")
    tuned("A", 5.0, replace(asked, arguments=()), "digest", chosen=True)
    assert seconds(world, batch) == about(40)
    tuned("A", 10.0, asked, "digest")
    assert seconds(world, batch) == about(20)
    world.sql("update workers set tokens_per_second = 20 where id = :id", id=worker.id)
    assert seconds(world, batch) == about(10)


def said(world: World) -> int:
    return world.db.run(first_expectations.say, world.settings)


def ratios(world: World) -> dict[str, int]:
    """How often each ratio was counted, by the bucket's upper end."""
    world.db.run(tally.ended)
    name = "eta_error_ratio/standard/"
    counted = world.db.run(lambda tx: counts.read(tx.conn))
    return {key.removeprefix(name): value for key, value in counted.items() if key.startswith(name)}


def test_an_end_is_compared_with_what_was_first_expected_of_it(world: World) -> None:
    batch = world.batch(10)
    assert said(world) == 0, "nobody can say anything yet"
    fast(world)
    world.sql("update models set tokens_scale = 1")
    assert (said(world), said(world)) == (1, 0), "what was said first stays"
    # It was said a while ago that it would take longer than it has taken by now.
    world.sql("update first_expectations set said_at = now() - interval '60 s', expected_at = now() + interval '40 s'")
    world.drain(batch)
    assert ratios(world) == {"0.7": 1, "sum": pytest.approx(650, abs=50)}
    assert world.rows("select * from first_expectations") == []


def test_what_was_steered_cut_short_or_expected_within_seconds_is_not_compared(world: World) -> None:
    fast(world)
    world.sql("update models set tokens_scale = 1")
    paused, moved, cancelled, short = world.batch(30), world.batch(30), world.batch(30), world.batch(30)
    assert said(world) == 4
    world.sql("update first_expectations set expected_at = said_at + interval '9 s' where batch = :short", short=short)
    world.pause(paused)
    world.move(moved, window="48h")
    kept = [row.batch for row in world.rows("select batch from first_expectations order by batch")]
    assert kept == sorted([cancelled, short])
    world.cancel(cancelled)
    for batch in (paused, moved, cancelled, short):
        world.drain(batch)
    assert ratios(world) == {}
