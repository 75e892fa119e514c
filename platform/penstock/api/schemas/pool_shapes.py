"""What pools and their decisions look like to an operator."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from penstock.api.schemas.shapes import time, unix
from penstock.domain.accounts.price import rate
from penstock.domain.pools.pool import PoolHost, PoolMember, PoolView
from penstock.domain.pools.situation import PoolTerms
from penstock.domain.pools.switch import PoolSwitch
from penstock.domain.work.lane import Lane
from penstock.service.pools.decisions import PREFIX

States = Literal["waking", "awake", "leaving", "asleep", "stopped"]


class PoolBounds(BaseModel):
    """How long the oldest work of a lane may wait for its version; null: until its deadline, as flex does."""

    priority: float | None
    standard: float | None


class PoolTermsShape(BaseModel):
    """How a pool switches. Times are seconds."""

    awake: int = Field(description="So many versions at once, on each host.")
    share_lost: float = Field(description="At most about so much of the time is switching, where the bounds allow.")
    least_quantum_seconds: float = Field(description="A version with work stays so long at least.")
    linger_seconds: float = Field(description="One without stays so long before another takes its place.")
    bounds: PoolBounds
    call_bound_seconds: float = Field(description="So long, and a switch, waiting calls of on-demand versions wait.")
    most_switches_for_calls: int = Field(description="In an hour.")


class PoolVersionShape(BaseModel):
    """A version that a pool may serve."""

    version: str = Field(description="`chat@v2`.")
    state: States = Field(description="The most awake that it is on any host of the pool.")
    on_demand: bool = Field(description="A waiting call may wake it.")
    pinned: bool = Field(description="It is kept awake until it is unpinned.")
    wake_asked_at: int | None = Field(description="It was asked to be next then, and is not awake yet.")
    memory_bytes: int | None = Field(description="What it needs while it is awake, as far as somebody said.")
    unfit_reason: str | None = Field(description="Why it could not be started here twice; `wake` has it tried again.")
    waiting_tokens: int = Field(description="Estimated tokens of batches and jobs that are left for it.")


class PoolResidentShape(BaseModel):
    """A version on a host."""

    version: str
    state: States
    since: int
    worker_id: str | None


class PoolHostShape(BaseModel):
    """A live host of a pool."""

    id: str = Field(description="Its worker id.")
    host: str
    pid: int
    started_at: int
    residents: list[PoolResidentShape]


class PoolShape(BaseModel):
    """Machines of one kind that serve these versions, all of them or in turns."""

    id: str = Field(description="Its name.")
    object: Literal["pool"] = "pool"
    kind: Literal["dedicated", "shared"]
    device: str | None = Field(description="What its machines have; costs of switches are measured by it.")
    region: str | None
    terms: PoolTermsShape
    memory_bytes: int | None = Field(description="For what is awake at once, of each host.")
    gpu_second: str | None = Field(description="What a GPU-second of it costs: for people, no part of `cost`.")
    versions: list[PoolVersionShape]
    hosts: list[PoolHostShape]
    created_at: int


class DeletedPool(BaseModel):
    """Confirms a removal."""

    id: str
    object: Literal["pool"] = "pool"
    deleted: bool = True


class UnkeptShape(BaseModel):
    """A bound or deadline that could not be kept, whatever was decided."""

    version: str
    lane: str = Field(description="A lane, `call` or `deadline`.")
    bound_seconds: float
    expected_seconds: float = Field(description="When its turn was likely to come, waited time included.")


class PoolDecisionShape(BaseModel):
    """A switch: who left, who came and why, and what became of it."""

    id: str
    object: Literal["pool.decision"] = "pool.decision"
    pool: str
    host_id: str
    at: int
    why: str = Field(description="`free_place`, `idle`, `quantum`, `bound`, `deadline`, `call`, `pinned`.")
    leaves: str | None = Field(description="The queue of a version; null: a place was free.")
    comes: str | None = Field(description="The same; null: a place was freed.")
    method: str
    state: Literal["decided", "leaving", "stopping", "waking", "probing", "done", "failed", "cancelled"]
    ended_at: int | None
    seconds: float | None = Field(description="From the decision to the first token, once it is done.")
    error: str | None
    scores: dict[str, float] = Field(description="What each version that was weighed was worth.")
    quantum_seconds: float = Field(description="How long whoever was awake might stay beside others' work.")
    unkept: list[UnkeptShape]
    waiting: dict[str, Any] = Field(description="What waited then, by queue: tokens, oldest waits by lane, calls.")


def pool(view: PoolView) -> PoolShape:
    """A pool's shape."""
    one = view.pool
    names = {member.queue: member.version.name for member in one.members}
    return PoolShape(
        id=one.name,
        kind=one.kind.value,
        device=one.device or None,
        region=one.region or None,
        terms=_terms(one.terms),
        memory_bytes=one.memory_bytes,
        gpu_second=None if one.price is None else rate(one.price),
        versions=[_version(view, member) for member in sorted(one.members, key=lambda member: member.version.name)],
        hosts=[_host(host, names) for host in view.hosts],
        created_at=unix(one.created_at),
    )


def decision(one: PoolSwitch) -> PoolDecisionShape:
    """A decision's shape."""
    unkept = [{"version": told["queue"], **told} for told in one.details.get("unkept", ())]
    return PoolDecisionShape(
        id=f"{PREFIX}{one.id}",
        pool=one.pool,
        host_id=str(one.host),
        at=unix(one.at),
        why=one.why,
        leaves=one.leaves,
        comes=one.comes,
        method=one.method,
        state=one.state.value,
        ended_at=time(one.ended_at),
        seconds=one.seconds,
        error=one.error,
        scores=one.details.get("scores", {}),
        quantum_seconds=one.details.get("quantum_seconds", 0.0),
        unkept=[UnkeptShape.model_validate(told) for told in unkept],
        waiting=one.details.get("waiting", {}),
    )


def _terms(terms: PoolTerms) -> PoolTermsShape:
    return PoolTermsShape(
        awake=terms.awake,
        share_lost=terms.share_lost,
        least_quantum_seconds=terms.least_quantum_seconds,
        linger_seconds=terms.linger_seconds,
        bounds=PoolBounds(priority=terms.bounds.get(Lane.PRIORITY), standard=terms.bounds.get(Lane.STANDARD)),
        call_bound_seconds=terms.call_bound_seconds,
        most_switches_for_calls=terms.most_switches_for_calls,
    )


def _version(view: PoolView, member: PoolMember) -> PoolVersionShape:
    return PoolVersionShape(
        version=member.version.name,
        state=view.state_of(member.queue).value,
        on_demand=member.on_demand,
        pinned=member.pinned,
        wake_asked_at=time(member.wake_asked_at),
        memory_bytes=member.memory_bytes,
        unfit_reason=member.unfit_reason,
        waiting_tokens=view.waiting_tokens.get(member.queue, 0),
    )


def _host(host: PoolHost, names: dict[str, str]) -> PoolHostShape:
    return PoolHostShape(
        id=str(host.id),
        host=host.host,
        pid=host.pid,
        started_at=unix(host.started_at),
        residents=[
            PoolResidentShape(
                version=names.get(one.queue, one.queue),
                state=one.state.value,
                since=unix(one.since),
                worker_id=None if one.member is None else str(one.member),
            )
            for one in host.residents
        ],
    )
