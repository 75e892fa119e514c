"""A pool in the small world: three versions, hosts, members, and the clock for what passed."""

from __future__ import annotations

import uuid
from uuid import UUID

import pytest
from store.world import World

from penstock.domain.models.version import Definition
from penstock.domain.pools.decision import PoolDecision, Why
from penstock.domain.pools.situation import PoolSituation
from penstock.domain.work.holder import Holder
from penstock.service.lifecycle import work
from penstock.service.models import versions
from penstock.service.pools import decisions, pools, residents, situations
from penstock.service.pools.pools import WantedMember

A, B, C = "alpha", "beta", "gamma"


def make(world: World, name: str = "a", *, on_demand: str = "", **how: object) -> None:
    """Three versions, and a pool of them."""
    for model in (A, B, C):
        world.db.run(versions.add, model, Definition(f"/models/{model}", "llamacpp" if model == C else "vllm"))
    members = [WantedMember(model, on_demand=model == on_demand) for model in (A, B, C)]
    world.db.run(pools.create, name, members, **how)


def host(world: World, pool: str = "a") -> UUID:
    """A live host of a pool."""
    holder = Holder(uuid.uuid4(), "pool", None, "machine", 1, pool)
    world.db.run(work.register, holder, "ready", 0)
    return holder.id


def awake(world: World, host: UUID, queue: str, *, tokens_per_second: float = 0.0) -> Holder:
    """A member serves a version on a host."""
    member = world.worker(queue)
    world.sql("update workers set tokens_per_second = :rate where id = :id", rate=tokens_per_second, id=member.id)
    world.db.run(residents.put, host, queue, "awake", member.id)
    return member


def put_away(world: World, host: UUID, queue: str, member: Holder) -> None:
    """It is stopped."""
    world.db.run(work.mark, member, "gone", world.settings)
    world.db.run(residents.put, host, queue, "stopped")


def read(world: World, host: UUID, pool: str = "a") -> PoolSituation:
    """What the host decides by."""
    return world.db.run(situations.read, pool, host, world.settings)


def begin(world: World, host: UUID, comes: str | None = B, leaves: str | None = A, why: Why = Why.QUANTUM) -> int:
    """A decision is written down."""
    decision = PoolDecision(why, leaves, comes, {B: 2.5}, 30.0)
    return world.db.run(decisions.begin, "a", host, decision, "restart", world.settings)


def passed(world: World, seconds: float) -> None:
    """So much time has passed for batches, residents, wants and decisions."""
    for what in (
        "batches set in_progress_at = in_progress_at - {0}, deadline = deadline - {0} where not ended(state)",
        "pool_residents set since = since - {0}, awake_at = awake_at - {0}",
        "pool_served set until = until - {0}",
        "pool_wants set since = since - {0}, seen_at = seen_at - {0}",
        "pool_decisions set at = at - {0}, ended_at = ended_at - {0}",
    ):
        told = what.replace("not ended(state)", "state in ('in_progress', 'paused')")
        world.sql(f"update {told.format('make_interval(secs => :seconds)')}", seconds=seconds)
    world.sql("update slices set deadline = deadline - make_interval(secs => :seconds)", seconds=seconds)


def near(seconds: float) -> object:
    """So many seconds, as far as a test's own time allows."""
    return pytest.approx(seconds, abs=5)
