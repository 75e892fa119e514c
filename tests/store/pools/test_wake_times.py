"""What others see of a pool: why a batch waits, and when its version wakes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from store.pool_world import A, B, awake, host, make, passed
from store.world import World

from penstock.domain.accounts.eta import Expectation
from penstock.domain.calls.ingress import Load
from penstock.domain.pools.pool import PoolKind
from penstock.domain.work.lane import Lane
from penstock.domain.work.waiting import WhyWaiting
from penstock.service.admin import health
from penstock.service.calls import ingresses
from penstock.service.estimates import eta
from penstock.service.pools import pools, residents
from penstock.service.pools.pools import WantedMember
from penstock.service.views import batch_view


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


def test_the_router_tells_a_member_of_a_shared_pool_from_a_worker_of_its_version_alone(world: World) -> None:
    make(world)
    world.db.run(pools.create, "d", [WantedMember(A)], kind=PoolKind.DEDICATED)
    alone = world.worker(A)
    member, dedicated = awake(world, host(world), A), awake(world, host(world, "d"), A)
    for one in (alone, member, dedicated):
        world.db.run(ingresses.announce, one, "http://here", [A], 8, world.settings)
        world.db.run(ingresses.pulse, one, Load(True, 0, 0, 8, "", 0.0))
    table = world.db.run(ingresses.table, world.settings)
    assert {one.worker for one in table.ingresses if one.shared} == {member.id}
    assert len(table.ingresses) == 3
