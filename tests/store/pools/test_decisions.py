"""Decisions in Postgres: moved on step by step, cancelled, counted, and what they cost."""

from __future__ import annotations

import uuid

import pytest
from store.pool_world import A, B, C, awake, begin, host, make, passed, read
from store.world import World

from penstock.domain.api_errors import Conflict
from penstock.domain.pools.decision import PoolDecision, Unkept, Why
from penstock.domain.pools.switch import SwitchState
from penstock.service.pools import decisions, pools, residents, situations, wants


def test_a_switch_goes_from_step_to_step_and_its_cost_is_learnt(world: World) -> None:
    make(world)
    on = host(world)
    awake(world, on, A)
    for seconds in (10.0, 20.0):
        id = begin(world, on)
        for state in ("leaving", "stopping", "waking", "waking", "probing"):
            assert world.db.run(decisions.move, id, state)
        world.db.run(decisions.end, id, "done", seconds)
        world.db.run(decisions.end, id, "done", seconds)
    assert read(world, on).switch_seconds == {A: 60.0, B: 15.0, C: 5.0}
    found = world.db.run(decisions.page, "a", limit=10)
    assert [(one.state, one.seconds, one.why, one.leaves, one.comes) for one in found] == [
        (SwitchState.DONE, 20.0, "quantum", A, B),
        (SwitchState.DONE, 10.0, "quantum", A, B),
    ]
    assert found[0].details == {"scores": {B: 2.5}, "quantum_seconds": 30.0, "unkept": []}
    with pytest.raises(Conflict):
        world.db.run(decisions.move, begin(world, on), "probing")


def test_costs_are_means_that_follow_what_is_new(world: World) -> None:
    make(world)
    on = host(world)
    for seconds in [10.0] * 20 + [30.0]:
        world.db.run(decisions.end, begin(world, on, leaves=None), "done", seconds)
    assert read(world, on).switch_seconds[B] == pytest.approx(12.0)


def test_a_decision_says_what_waited_and_what_can_not_be_kept(world: World) -> None:
    make(world)
    on = host(world)
    world.batch(10, model=B)
    unkept = (Unkept(C, "standard", 3_600, 4_000),)
    decision = PoolDecision(Why.BOUND, A, B, {}, 20.0, unkept)
    world.db.run(decisions.begin, "a", on, decision, "sleep", world.settings, read(world, on))
    details = world.db.run(decisions.page, "a", limit=1)[0].details
    assert details["unkept"] == [{"queue": C, "lane": "standard", "bound_seconds": 3600, "expected_seconds": 4000}]
    assert details["waiting"][B]["tokens"] == 100
    assert set(details["waiting"]) == {B}


def test_only_a_switch_that_has_not_begun_to_stop_is_cancelled_and_its_version_left_alone(world: World) -> None:
    make(world)
    on = host(world)
    world.batch(10, model=B)
    with pytest.raises(Conflict, match="No switch of pool 'a' is under way"):
        world.db.run(decisions.cancel, "a")
    id = begin(world, on)
    assert world.db.run(decisions.move, id, "leaving")
    assert world.db.run(decisions.cancel, "a").id == id
    assert not world.db.run(decisions.move, id, "stopping")
    world.db.run(decisions.end, id, "done", 1.0)
    assert world.db.run(decisions.page, "a", limit=1)[0].state is SwitchState.CANCELLED
    assert B not in read(world, on).waiting
    passed(world, situations.LEFT_ALONE.total_seconds() + 1)
    assert B in read(world, on).waiting
    id = begin(world, on)
    assert world.db.run(decisions.move, id, "stopping")
    with pytest.raises(Conflict, match="begun to stop"):
        world.db.run(decisions.cancel, "a")


def test_a_switch_whose_host_was_taken_for_gone_goes_no_further(world: World) -> None:
    make(world)
    first, second = host(world), host(world)
    id = begin(world, first)
    assert world.db.run(decisions.move, id, "leaving")
    world.sql("update workers set seen_at = now() - interval '1 minute' where id = :id", id=first)
    begin(world, second)
    assert not world.db.run(decisions.move, id, "stopping")
    assert not world.db.run(decisions.end, id, "done", 1.0)
    states = [one.state for one in world.db.run(decisions.page, "a", limit=10)]
    assert states == [SwitchState.DECIDED, SwitchState.FAILED]


def test_what_a_host_leaves_open_has_failed(world: World) -> None:
    make(world)
    first, second = host(world), host(world)
    begin(world, first)
    awake(world, first, A)
    world.db.run(residents.gone, first)
    begin(world, first)
    world.sql("update workers set seen_at = now() - interval '1 minute' where id = :id", id=first)
    begin(world, second)
    found = world.db.run(decisions.page, "a", limit=10)
    assert [(one.state, one.error) for one in found] == [
        (SwitchState.DECIDED, None),
        (SwitchState.FAILED, "Its host is gone."),
        (SwitchState.FAILED, "Its host has ended."),
    ]
    assert [len(one.residents) for one in world.db.run(pools.view, "a", world.settings).hosts] == [0]


def test_switches_for_calls_and_what_all_cost_are_counted_by_the_hour(world: World) -> None:
    make(world, on_demand=B)
    on = host(world)
    for why, seconds in ((Why.CALL, 10.0), (Why.CALL, 20.0), (Why.QUANTUM, 5.0)):
        world.db.run(decisions.end, begin(world, on, why=why), "done", seconds)
    now = read(world, on)
    assert (now.switches_for_calls, now.lost_seconds) == (2, 35.0)
    world.db.run(wants.note, uuid.uuid4(), {B: 1.0})
    decision = PoolDecision(Why.IDLE, A, B)
    world.db.run(decisions.begin, "a", on, decision, "restart", world.settings, read(world, on))
    assert read(world, on).switches_for_calls == 3, "a call waited for it, too"
    passed(world, 3_601)
    now = read(world, on)
    assert (now.switches_for_calls, now.lost_seconds) == (0, 0.0)
