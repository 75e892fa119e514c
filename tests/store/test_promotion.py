"""Promotion: what runs out of time rises by one lane, into a bounded part of it, and falls back with time to spare."""

from __future__ import annotations

from collections import Counter

import pytest
from store.test_fair_turns import served
from store.world import MODEL, World

from penstock import keeper
from penstock.domain.work import hint
from penstock.domain.work.holder import Holder
from penstock.domain.work.lane import LANES, Lane
from penstock.domain.work.slack import Outlook, rises
from penstock.service.lifecycle import dispatch


def fast(world: World, tokens_per_second: float = 1.0) -> Holder:
    """A ready worker whose rate is known."""
    worker = world.worker()
    world.sql("update workers set tokens_per_second = :rate where id = :id", rate=tokens_per_second, id=worker.id)
    return worker


def due(world: World, batch: str, seconds: float, window: float = 100.0) -> None:
    """The batch has so many seconds left of its window."""
    world.sql(
        "update batches set deadline = clock_timestamp() + make_interval(secs => :seconds),"
        " created_at = clock_timestamp() + make_interval(secs => :seconds - :window) where id = :batch",
        batch=batch, seconds=seconds, window=window,
    )  # fmt: skip
    world.sql(
        "update slices s set deadline = b.deadline from batches b where b.id = s.batch and b.id = :batch", batch=batch
    )


def promote(world: World) -> int:
    return keeper.promote(world.db, world.settings)


def places(world: World, batch: str) -> set[tuple[str, int, bool]]:
    """Lane, effective rank and promotion of a batch's slices."""
    return {(row.lane, row.lane_rank, row.promoted) for row in world.slices(batch)}


def outlook(slack: float, promoted: bool = False, window: float = 100.0) -> Outlook:
    return Outlook("batch", MODEL, promoted, not promoted, slack + 50.0, window, 50.0)


def test_a_batch_rises_while_its_slack_is_below_the_margin_and_falls_back_at_twice_that() -> None:
    assert [rises(outlook(slack), 30, 0.2) for slack in (31, 29, 0.1, -0.1)] == [False, True, True, False]
    assert [rises(outlook(slack, promoted=True), 30, 0.2) for slack in (61, 59, 29, 0.1)] == [False, True, True, True]


def test_a_risen_batch_that_can_no_longer_be_in_time_is_given_up_but_not_for_noise() -> None:
    assert [rises(outlook(slack, promoted=True), 30, 0.2) for slack in (-2, -4)] == [True, False]


def test_of_a_long_window_the_last_tenth_is_the_margin() -> None:
    longer = [rises(outlook(slack, window=86_400), 30, 0.2) for slack in (8_841, 8_839)]  # at its share: 200 s more
    assert longer == [False, True]


def test_what_needs_long_at_its_share_rises_so_much_earlier_but_not_before_the_second_half() -> None:
    def large(left: float, needed: float) -> bool:
        return rises(Outlook("batch", MODEL, False, True, left, 10_000, needed), 30, 0.2)

    assert [large(left, 500) for left in (3_501, 3_499)] == [False, True]
    assert [large(left, 2_000) for left in (6_001, 5_999)] == [False, True]
    assert [large(left, 7_000) for left in (8_001, 7_999)] == [False, True]


@pytest.mark.parametrize(("lane", "above"), [(Lane.FLEX, ("flex", 1, True)), (Lane.STANDARD, ("standard", 0, True))])
def test_a_batch_that_runs_out_of_time_rises_by_one_lane(
    world: World, lane: Lane, above: tuple[str, int, bool]
) -> None:
    batch = world.batch(2, 2, lane=lane)
    fast(world)
    due(world, batch, 60)  # 40 tokens at 1 a second: 20 s of slack
    world.said.clear()
    assert promote(world) == 2
    assert places(world, batch) == {(lane, lane.rank - 1, True)}
    assert world.states(batch) == ["ready", "ready"]
    assert world.said == [hint.generate(MODEL, LANES[lane.rank - 1])] * 2
    assert promote(world) == 0


def test_priority_work_cannot_rise_and_flex_never_reaches_priority(world: World) -> None:
    urgent, flex = world.batch(2, lane=Lane.PRIORITY), world.batch(2, lane=Lane.FLEX)
    fast(world)
    for batch in (urgent, flex):
        due(world, batch, 30)
    for _ in range(3):
        promote(world)
    assert places(world, urgent) == {("priority", 0, False)}
    assert places(world, flex) == {("flex", 1, True)}


@pytest.mark.parametrize("seconds", [200.0, 15.0])
def test_a_batch_that_has_time_or_cannot_be_in_time_stays(world: World, seconds: float) -> None:
    batch = world.batch(2, lane=Lane.FLEX)
    fast(world)
    due(world, batch, seconds)
    assert promote(world) == 0
    assert places(world, batch) == {("flex", 2, False)}


@pytest.mark.parametrize("seconds", [200.0, 15.0])
def test_a_risen_batch_that_has_time_again_or_cannot_be_in_time_any_more_falls_back(
    world: World, seconds: float
) -> None:
    batch = world.batch(2, lane=Lane.FLEX)
    fast(world)
    due(world, batch, 30)
    assert promote(world) == 1
    due(world, batch, seconds)
    assert promote(world) == 1
    assert places(world, batch) == {("flex", 2, False)}
    assert world.states(batch) == ["ready"]


def test_without_a_measured_rate_nothing_moves(world: World) -> None:
    batch = world.batch(2, lane=Lane.FLEX)
    world.worker()
    due(world, batch, 30)
    assert promote(world) == 0


def test_what_is_recorded_is_not_ahead_of_it_any_more(world: World) -> None:
    batch = world.batch(4, lane=Lane.FLEX)  # 40 tokens: with all of them ahead it could not be in time
    worker = fast(world)
    due(world, batch, 25)
    assert promote(world) == 0
    world.flush(world.claimed(worker), 1, 1, 2)
    assert promote(world) == 1


def test_estimates_are_scaled_by_what_the_model_turned_out_to_need(world: World) -> None:
    batch = world.batch(2, lane=Lane.FLEX)
    fast(world)
    due(world, batch, 90)
    assert promote(world) == 0
    world.sql("update models set tokens_scale = 2 where name = :model", model=MODEL)
    assert promote(world) == 0
    world.sql("update models set tokens_scale = 3.2 where name = :model", model=MODEL)
    assert promote(world) == 1


def test_a_paused_or_closing_batch_does_not_rise(world: World) -> None:
    batch = world.batch(2, lane=Lane.FLEX)
    fast(world)
    due(world, batch, 30)
    world.pause(batch)
    assert promote(world) == 0
    world.resume(batch)
    assert promote(world) == 1


def test_a_batch_that_gets_another_lane_stands_there(world: World) -> None:
    batch = world.batch(2, lane=Lane.FLEX)
    fast(world)
    due(world, batch, 30)
    (found,) = world.db.run(dispatch.misplaced, world.settings)
    promote(world)
    world.move(batch, Lane.PRIORITY)
    assert places(world, batch) == {("priority", 0, False)}
    assert world.db.run(dispatch.put, *found, world.settings) == 0, "decided before it got there"


def test_promoted_work_gets_a_fifth_of_the_lane_above_while_that_has_work_of_its_own(world: World) -> None:
    world.tenant("globex", weight=3)
    worker = fast(world)
    for tenant in ("acme", "globex"):
        world.batch(*[1] * 60, tenant=tenant)
    risen = world.batch(*[1] * 60, lane=Lane.FLEX, tenant="initech")
    due(world, risen, 620, window=1000)
    promote(world)
    tenants = served(world, worker, 60)
    assert 11 <= Counter(tenants)["initech"] <= 13
    assert abs(Counter(tenants)["globex"] - 36) <= 1
    for upto in range(5, 60, 5):
        assert Counter(tenants[:upto])["initech"] <= upto / 5 + 1


def test_promoted_work_takes_all_of_the_lane_above_when_that_has_no_work_of_its_own(world: World) -> None:
    worker = fast(world)
    risen = world.batch(*[1] * 10, lane=Lane.FLEX, tenant="initech")
    other = world.batch(*[1] * 10, lane=Lane.FLEX, window="1h")
    due(world, risen, 120, window=1000)
    promote(world)
    for _ in range(10):
        claim = world.claimed(worker)
        assert (claim.batch, claim.lane) == (risen, Lane.STANDARD)
        world.finish(claim)
    assert places(world, other) == {("flex", 2, False)}


def test_among_promoted_batches_the_earliest_deadline_goes_first_whose_ever_it_is(world: World) -> None:
    worker = fast(world)
    later = world.batch(1, 1, lane=Lane.FLEX, tenant="globex")
    soon = world.batch(1, 1, lane=Lane.FLEX)
    due(world, later, 49)
    due(world, soon, 45)
    assert promote(world) == 4
    assert [world.claimed(worker).batch for _ in range(4)] == [soon, soon, later, later]
