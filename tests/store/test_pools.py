"""Pools in Postgres: what waits and what is awake, what was decided and cost, what an operator wants."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from store.pool_world import A, B, C, awake, begin, host, make, passed, put_away, read
from store.world import World

from penstock.domain.accounts.eta import Expectation
from penstock.domain.api_errors import BadRequest, Conflict, NotFound, Unavailable
from penstock.domain.models.version import Definition
from penstock.domain.pools.decision import PoolDecision, Unkept, Why
from penstock.domain.pools.pool import PoolKind
from penstock.domain.pools.situation import PoolSituation
from penstock.domain.pools.switch import SwitchState
from penstock.domain.work.lane import Lane
from penstock.service.admin import health
from penstock.service.core.transaction import Transaction
from penstock.service.estimates import eta
from penstock.service.models import versions
from penstock.service.pools import decisions, pools, residents, situations, wants
from penstock.service.pools.pools import WantedMember
from penstock.service.views import batch_view
from penstock.service.views.batch_view import WhyWaiting
from penstock.settings import Settings


@pytest.fixture(scope="module")
def whole(shared_database_url: str) -> Iterator[World]:
    one = World(shared_database_url, Settings(database_url=shared_database_url, ready_per_worker=4))
    yield one
    one.close()


@pytest.fixture
def world(whole: World) -> Iterator[World]:
    """One database for all: a small world, begun again."""
    whole.clear()
    yield whole
    whole.check()


def near(seconds: float) -> object:
    return pytest.approx(seconds, abs=5)


def test_a_pool_is_what_its_operator_said(world: World) -> None:
    make(world, on_demand=B, device="h100", terms={"awake": 2, "bounds": {"standard": 120.0, "priority": None}})
    found = world.db.run(pools.get, "a")
    assert [(one.queue, one.on_demand, one.pinned) for one in found.members] == [
        (A, False, False),
        (B, True, False),
        (C, False, False),
    ]
    assert (found.kind, found.device, found.terms.awake) == (PoolKind.SHARED, "h100", 2)
    assert found.terms.bounds == {Lane.STANDARD: 120.0}
    assert found.terms.linger_seconds == 2.0, "as by default"
    with pytest.raises(Conflict):
        world.db.run(pools.create, "a", [WantedMember(A)])


def test_all_of_a_dedicated_pool_are_awake_and_stay(world: World) -> None:
    make(world, kind=PoolKind.DEDICATED)
    assert world.db.run(pools.get, "a").terms.awake == 3
    assert read(world, host(world)).pinned == {A, B, C}


@pytest.mark.parametrize(
    ("members", "how", "why"),
    [
        ([A], {"name": "Not a name"}, "name"),
        ([], {}, "1 to 100 versions"),
        ([A, A], {}, "named twice"),
        ([A], {"terms": {"awake": 0}}, "awake is from 1"),
        ([A], {"terms": {"bounds": {"flex": 3.0}}}, "priority and standard"),
        ([A], {"device": "a\nb"}, "printable"),
    ],
)
def test_what_can_not_be_a_pool_is_refused(world: World, members: list[str], how: dict[str, object], why: str) -> None:
    world.db.run(versions.add, A, Definition("/models/a", "vllm"))
    name = str(how.pop("name", "a"))
    with pytest.raises(BadRequest, match=why):
        world.db.run(pools.create, name, [WantedMember(one) for one in members], **how)


def test_versions_that_do_not_fit_together_are_no_pool(world: World) -> None:
    for model in (A, B):
        world.db.run(versions.add, model, Definition(f"/models/{model}", "vllm"))
    members = [WantedMember(A, memory_bytes=60 * 10**9), WantedMember(B, memory_bytes=30 * 10**9)]
    with pytest.raises(BadRequest, match=r"need 90.0 GB together, and the pool has 80.0 GB"):
        world.db.run(pools.create, "a", members, terms={"awake": 2}, memory_bytes=80 * 10**9)
    world.db.run(pools.create, "a", members, terms={"awake": 1}, memory_bytes=80 * 10**9)
    with pytest.raises(NotFound, match="no version yet"):
        world.db.run(pools.create, "b", [WantedMember("tiny")])


def test_a_changed_pool_keeps_the_pins_of_versions_that_stay(world: World) -> None:
    make(world)
    world.db.run(pools.pin, "a", B)
    changed = world.db.run(pools.change, "a", {"members": [WantedMember(B, True), WantedMember(C)], "device": "l4"})
    assert [(one.queue, one.on_demand, one.pinned) for one in changed.members] == [(B, True, True), (C, False, False)]
    assert changed.device == "l4"
    with pytest.raises(BadRequest, match="awake is from 1"):
        world.db.run(pools.change, "a", {"terms": {"awake": 0}})


def test_what_waits_is_told_by_lane_with_its_deadlines(world: World) -> None:
    make(world)
    on = host(world)
    world.sql("update models set tokens_scale = 2 where name = :name", name=A)
    world.batch(10, 10, model=A, window="1h")
    passed(world, 100)
    world.batch(10, model=A, window="1h", lane=Lane.FLEX)
    world.batch(5, model=B, window="24h")
    now = read(world, on)
    assert (now.waiting[A].tokens, now.waiting[B].tokens, now.waiting[C].tokens) == (600, 50, 0)
    assert now.waiting[A].oldest == {Lane.STANDARD: near(100), Lane.FLEX: near(0)}
    due = [(one.seconds, one.tokens) for one in now.waiting[A].deadlines]
    assert due == [(near(3500), 400), (near(3600), 600)], "by lane"
    assert (now.residents, now.pinned, now.unfit, now.switches_for_calls) == ((), frozenset(), frozenset(), 0)
    assert now.tokens_per_second == {A: 1000.0, B: 1000.0, C: 1000.0}, "nobody knows yet"
    assert now.switch_seconds == {A: 60.0, B: 60.0, C: 5.0}, "by their engines"


def test_deadlines_add_up_and_those_far_apart_are_told_apart(world: World) -> None:
    make(world)
    for window in ("1h", "2h", "24h"):
        world.batch(10, model=A, window=window)
    found = read(world, host(world)).waiting[A].deadlines
    assert [one.tokens for one in found] == [100, 200, 300]


def test_what_runs_waits_until_it_is_answered(world: World) -> None:
    make(world)
    on = host(world)
    member = awake(world, on, A)
    world.batch(10, 10, model=A)
    claim = world.claimed(member)
    world.flush(claim, 1, *range(claim.first_line, claim.first_line + 5))
    assert read(world, on).waiting[A].tokens == pytest.approx(150)


def test_paused_work_does_not_wait(world: World) -> None:
    make(world)
    world.pause(world.batch(10, model=A))
    assert read(world, host(world)).waiting[A].tokens == 0


def test_a_resident_says_how_long_it_has_been_awake_and_without_work(world: World) -> None:
    make(world)
    on = host(world)
    member = awake(world, on, A, tokens_per_second=500.0)
    passed(world, 60)
    now = read(world, on)
    assert [(one.queue, one.awake_seconds, one.idle_seconds) for one in now.residents] == [(A, near(60), near(60))]
    assert now.tokens_per_second[A] == 500.0
    world.sql("update workers set busy_at = clock_timestamp() where id = :id", id=member.id)
    assert read(world, on).residents[0].idle_seconds == near(0)


def test_a_batch_that_was_served_waits_from_when_its_version_left(world: World) -> None:
    make(world)
    on = host(world)
    member = awake(world, on, A, tokens_per_second=700.0)
    world.batch(2, 2, 2, model=A)
    world.finish(world.claimed(member))
    world.finish(world.claimed(member))
    world.batch(2, model=A, lane=Lane.PRIORITY)
    passed(world, 1000)
    assert read(world, on).waiting[A].oldest == {Lane.STANDARD: 0, Lane.PRIORITY: 0}, "it has an engine"
    world.sql("update pool_residents set awake_at = awake_at - interval '1 hour'")
    put_away(world, on, A, member)
    now = read(world, on)
    assert now.waiting[A].oldest == {Lane.STANDARD: near(0), Lane.PRIORITY: near(1000)}
    assert now.residents == ()
    assert now.tokens_per_second[A] == 700.0, "as it was measured here"


def test_what_another_host_has_awake_or_brings_does_not_wait_here(world: World) -> None:
    make(world)
    here, there = host(world), host(world)
    for model in (A, B, C):
        world.batch(2, model=model)
    awake(world, there, A)
    id = begin(world, there, comes=B)
    assert set(read(world, here).waiting) == {C}
    assert set(read(world, there).waiting) == {A, B, C}
    world.db.run(decisions.end, id, "failed")
    assert set(read(world, here).waiting) == {B, C}
    world.sql("update workers set seen_at = now() - interval '1 minute' where id = :id", id=there)
    world.sql("update workers set state = 'gone' where model = :model", model=A)
    assert set(read(world, here).waiting) == {A, B, C}, "that host is gone"


def test_work_that_workers_elsewhere_keep_in_time_does_not_wait_for_the_pool(world: World) -> None:
    make(world)
    on = host(world)
    world.batch(10, model=A, window="1h")
    dedicated = world.worker(A)
    assert A not in read(world, on).waiting, "it has only begun"
    world.sql("update workers set tokens_per_second = 10 where id = :id", id=dedicated.id)
    assert A not in read(world, on).waiting
    world.sql("update workers set tokens_per_second = 0.01 where id = :id", id=dedicated.id)
    assert A in read(world, on).waiting, "it would be late"


def test_a_want_is_of_on_demand_versions_and_ends_with_its_process(world: World) -> None:
    make(world, on_demand=B)
    on, process, other = host(world), uuid.uuid4(), uuid.uuid4()
    world.db.run(wants.note, process, {A: 3.0, B: 4.0})
    world.db.run(wants.note, other, {B: 9.0, "nothing such": 1.0})
    now = read(world, on)
    assert (now.waiting[A].oldest_call, now.waiting[B].oldest_call) == (None, near(9))
    world.db.run(wants.note, other, {})
    assert read(world, on).waiting[B].oldest_call == pytest.approx(4, abs=2)
    passed(world, 6)
    assert read(world, on).waiting[B].oldest_call is None, "nobody said it again"


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


def test_one_that_is_woken_while_it_is_awake_is_not_held_in_its_place_nor_brought_back(world: World) -> None:
    make(world)
    on = host(world)
    member = awake(world, on, A)
    world.db.run(pools.wake, "a", A)
    world.db.run(pools.wake, "a", B)
    assert read(world, on).pinned == {B}
    put_away(world, on, A, member)
    assert read(world, on).pinned == {B}


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


def test_who_is_woken_comes_first_until_it_is_awake_and_may_be_tried_again(world: World) -> None:
    make(world)
    on = host(world)
    world.db.run(pools.unfit, "a", B, "it has no weights")
    assert read(world, on).unfit == {B}
    world.db.run(pools.wake, "a", f"{B}@v1")
    now = read(world, on)
    assert (now.pinned, now.unfit) == ({B}, frozenset())
    awake(world, on, B)
    assert read(world, on).pinned == frozenset()
    world.db.run(versions.add, "delta", Definition("/d", "vllm"))
    with pytest.raises(NotFound, match="alpha@v1, beta@v1, gamma@v1"):
        world.db.run(pools.wake, "a", "delta")


def test_no_more_are_pinned_than_may_be_awake(world: World) -> None:
    make(world)
    world.db.run(pools.pin, "a", A)
    for act in (pools.pin, pools.wake):
        with pytest.raises(Conflict, match="alpha@v1 is pinned"):
            world.db.run(act, "a", B)
    with pytest.raises(BadRequest, match="from 1"):
        world.db.run(pools.change, "a", {"terms": {"awake": 0}})
    world.db.run(pools.unpin, "a", A)
    assert world.db.run(pools.pin, "a", B).member(B).pinned  # type: ignore[union-attr]


def test_a_pool_is_removed_once_no_host_of_it_lives(world: World) -> None:
    make(world)
    on = host(world)
    begin(world, on)
    with pytest.raises(Conflict, match="live on machine"):
        world.db.run(pools.remove, "a", world.settings)
    world.sql("update workers set state = 'gone' where id = :id", id=on)
    world.db.run(pools.remove, "a", world.settings)
    with pytest.raises(NotFound):
        world.db.run(situations.read, "a", on, world.settings)
    rows = [world.one(f"select count(*) from {table}") for table in ("pool_versions", "pool_decisions")]
    assert rows == [0, 0]


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


def test_two_hosts_do_not_decide_at_once(world: World) -> None:
    make(world)
    here, there = host(world), host(world)
    with world.db.engine.begin() as conn:
        situations.read(Transaction(conn), "a", here, world.settings)
        with pytest.raises(Unavailable):
            world.db.run(impatient, there, world)
    assert read(world, there).residents == ()


def impatient(tx: Transaction, host: uuid.UUID, world: World) -> PoolSituation:
    """What a host decides by, if it need not wait for another."""
    tx.conn.exec_driver_sql("set local lock_timeout = '50ms'")
    return situations.read(tx, "a", host, world.settings)


def test_a_batch_says_why_its_version_is_asleep_and_when_it_will_be_done(world: World) -> None:
    make(world)
    batch = world.batch(10, model=B)
    missing = health.missing_to_work
    view = world.db.run(batch_view.view, "acme", "batch", batch, world.settings)
    assert (view.waiting, view.expected) == (WhyWaiting("no_worker", (f"{B}@v1",)), Expectation(reason="no_worker"))
    assert "gpu worker" in world.db.run(missing, None, world.settings)
    on = host(world)
    assert world.db.run(missing, None, world.settings) == world.db.run(missing, B, world.settings) == ["keeper"]
    awake(world, on, A, tokens_per_second=100.0)
    passed(world, 10)
    world.batch(10, 10, 10, 10, model=A)
    view = world.db.run(batch_view.view, "acme", "batch", batch, world.settings)
    assert view.waiting is not None
    assert view.waiting.reason == "asleep"
    assert view.waiting.sentence == f"{B} is asleep: behind 400 tokens of {A} on pool a, about 64 s"
    assert view.expected is not None
    assert view.expected.expected_at is not None
    left = (view.expected.expected_at - datetime.now(UTC)).total_seconds()
    assert left == pytest.approx(4 + 60 + 0.1 + world.settings.flush_seconds, abs=2)
    world.db.run(residents.put, on, B, "waking")
    view = world.db.run(batch_view.view, "acme", "batch", batch, world.settings)
    assert view.waiting is not None
    assert f"{B} is waking on pool a" in (view.waiting.sentence or "")
    world.db.run(residents.put, on, B, "stopped")
    world.db.run(pools.pin, "a", A)
    assert world.db.run(batch_view.view, "acme", "batch", batch, world.settings).expected == Expectation(
        reason="asleep"
    )
    world.db.run(pools.unfit, "a", B, "no weights")
    view = world.db.run(batch_view.view, "acme", "batch", batch, world.settings)
    assert view.waiting == WhyWaiting("no_worker", (f"{B}@v1",))


def test_an_estimate_counts_the_switch(world: World) -> None:
    make(world)
    host(world)
    work = world.db.run(eta.ahead, "acme", [B, "tiny"], Lane.STANDARD, timedelta(hours=1), world.settings)
    assert (work[B].wake_seconds, work[B].switch_seconds, work[B].tokens_per_second) == (60.0, 60.0, 1_000.0)
    assert (work["tiny"].wake_seconds, work["tiny"].lines_at_once) == (0.0, 0)
