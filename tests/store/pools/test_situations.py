"""What a host decides by: what waits and what is awake, as Postgres says it."""

from __future__ import annotations

import uuid

import pytest
from store.pool_world import A, B, C, awake, begin, host, make, near, passed, put_away, read
from store.world import World

from penstock.domain.api_errors import Unavailable
from penstock.domain.models.tuning import Tuning
from penstock.domain.models.version import Definition
from penstock.domain.pools.situation import PoolSituation
from penstock.domain.work.lane import Lane
from penstock.service.core.transaction import Transaction
from penstock.service.models import tunings
from penstock.service.pools import decisions, pools, residents, situations, wants
from penstock.service.pools.pools import WantedMember


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


def test_what_another_pool_is_about_to_wake_is_left_to_it_while_that_is_in_time(world: World) -> None:
    make(world)
    world.db.run(pools.create, "b", [WantedMember(A), WantedMember(B)])
    here, there = host(world), host(world, "b")
    world.batch(10, model=A)
    assert A in read(world, here).waiting
    world.db.run(residents.put, there, A, "waking")
    assert A not in read(world, here).waiting
    world.db.run(residents.put, there, A, "stopped")
    assert A in read(world, here).waiting


def test_what_nobody_measured_at_work_is_as_it_was_tuned_on_such_a_device(world: World) -> None:
    make(world)
    on = host(world)
    definition = Definition(f"/models/{A}", "vllm")
    point = Tuning(A, definition, "L4", None, True, tokens_per_second=250.0, load_seconds=12.0)
    world.db.run(tunings.record, [point])
    assert read(world, on).tokens_per_second[A] == 1_000.0, "another device"
    world.sql("update workers set device = 'L4' where id = :id", id=on)
    now = read(world, on)
    assert (now.tokens_per_second[A], now.switch_seconds[A]) == (250.0, 12.0)
    awake(world, on, A, tokens_per_second=700.0)
    assert read(world, on).tokens_per_second[A] == 700.0
