"""A pool: which versions its hosts may serve, how many at once, and how they switch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from penstock.domain.api_errors import BadRequest
from penstock.domain.engines.profiles import PROFILES
from penstock.domain.models.version import HIDDEN, Version
from penstock.domain.pools.situation import PoolTerms
from penstock.domain.work.lane import Lane

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}", re.ASCII)
MOST_VERSIONS: Final = 100
"""A host looks at all of them each second."""


class PoolKind(StrEnum):
    """Whether all of a pool's versions are awake at once."""

    DEDICATED = "dedicated"
    """They are, always."""
    SHARED = "shared"
    """There are more than fit at once: they take turns."""


@dataclass(frozen=True)
class PoolMember:
    """One of the versions that a pool may serve."""

    version: Version
    on_demand: bool = False
    """A waiting call may wake it."""
    pinned: bool = False
    """An operator wants it awake until they say otherwise."""
    wake_asked_at: datetime | None = None
    """An operator wants it awake next; None once it is, or nobody does."""
    memory_bytes: int | None = None
    """What it needs while it is awake, if somebody said so."""
    unfit_reason: str | None = None
    """Why it could not be started here twice; None: it could, or was not tried."""

    @property
    def queue(self) -> str:
        """Its own."""
        return self.version.queue


@dataclass(frozen=True)
class Pool:
    """A pool as an operator made it."""

    name: str
    kind: PoolKind
    terms: PoolTerms
    members: tuple[PoolMember, ...]
    """By the names of their versions."""
    device: str
    """What its machines have, e.g. `h100`; costs of switches are measured by it. Empty: nobody said."""
    region: str
    memory_bytes: int | None
    """For all that are awake at once, of each host; None: nobody said."""
    price: int | None
    """Picounits for a GPU-microsecond; None: nobody said."""
    created_at: datetime

    def member(self, queue: str) -> PoolMember | None:
        """The version with this queue."""
        return next((one for one in self.members if one.queue == queue), None)


class ResidentState(StrEnum):
    """How a version is on a host."""

    WAKING = "waking"
    AWAKE = "awake"
    LEAVING = "leaving"
    ASLEEP = "asleep"
    STOPPED = "stopped"


PUT_AWAY: Final = frozenset({ResidentState.ASLEEP, ResidentState.STOPPED})


@dataclass(frozen=True)
class PoolResident:
    """A version on a host that was ever awake there."""

    queue: str
    state: ResidentState
    member: UUID | None
    """Its worker, if it has one."""
    since: datetime


@dataclass(frozen=True)
class PoolHost:
    """A live host of a pool."""

    id: UUID
    host: str
    """The machine's name, for people."""
    pid: int
    state: str
    started_at: datetime
    residents: tuple[PoolResident, ...] = ()

    @property
    def may_switch(self) -> bool:
        """Not one that is drained, or about to end."""
        return self.state in ("starting", "ready")


@dataclass(frozen=True)
class PoolView:
    """A pool, its live hosts, and what waits for its versions."""

    pool: Pool
    hosts: tuple[PoolHost, ...]
    waiting_tokens: Mapping[str, int] = field(default_factory=dict)
    """By queue; nothing where none is known."""

    def state_of(self, queue: str) -> ResidentState:
        """The most awake that a version is on any host."""
        states = [one.state for host in self.hosts for one in host.residents if one.queue == queue]
        return min(states, key=list(_BY_WAKEFULNESS).index, default=ResidentState.STOPPED)


_BY_WAKEFULNESS: Final = (
    ResidentState.AWAKE,
    ResidentState.WAKING,
    ResidentState.LEAVING,
    ResidentState.ASLEEP,
    ResidentState.STOPPED,
)


def why_no_member(version: Version) -> str:
    """Why no host can start a version, in a sentence; empty if one can, as far as it says itself."""
    made = version.definition
    profile = PROFILES.get(made.engine)
    if profile is None:
        return f"No engine is called {made.engine!r} here."
    if profile.is_elsewhere:
        return f"{version.name} runs elsewhere: no host can stop or start its engine."
    if made.base is not None:
        return f"{version.name} is an adapter: put its base {made.base!r} into the pool."
    if any(HIDDEN in argument for argument in made.arguments):
        return f"An argument of {version.name} is a secret, which is not kept: nobody can start it."
    return ""


def check_name(name: str) -> str:
    """A pool's name; raises BadRequest."""
    if not _NAME.fullmatch(name):
        message = "A pool's name has 1 to 40 of a to z, 0 to 9, - and _, and begins with a letter or digit."
        raise BadRequest(message, param="name")
    return name


_LEAST_AND_MOST: Final[Mapping[str, tuple[float, float]]] = {
    "awake": (1, MOST_VERSIONS),
    "share_lost": (0.001, 0.9),
    "least_quantum_seconds": (1, 86_400),
    "linger_seconds": (0, 86_400),
    "call_bound_seconds": (1, 3_600),
    "most_switches_for_calls": (0, 10_000),
}


def changed(terms: PoolTerms, given: Mapping[str, Any]) -> PoolTerms:
    """Terms with what is given; `bounds` by lane, where null takes one away. Raises BadRequest."""
    values = dict(given)
    bounds = dict(terms.bounds)
    for name, seconds in (values.pop("bounds", None) or {}).items():
        if name not in (Lane.PRIORITY, Lane.STANDARD):
            raise BadRequest("bounds are of the lanes priority and standard.", param="terms.bounds")
        bounds.pop(Lane(name), None)
        if seconds is not None:
            if not 1 <= seconds <= 30 * 86_400:
                raise BadRequest("A bound is 1 second to 30 days.", param=f"terms.bounds.{name}")
            bounds[Lane(name)] = float(seconds)
    for name, value in values.items():
        least, most = _LEAST_AND_MOST[name]
        if not least <= value <= most:
            raise BadRequest(f"{name} is from {least:g} to {most:g}.", param=f"terms.{name}")
    return replace(terms, **values, bounds=bounds)


def terms_as_json(terms: PoolTerms) -> dict[str, Any]:
    """As the database keeps them."""
    return asdict(terms) | {"bounds": {str(lane): seconds for lane, seconds in terms.bounds.items()}}


def terms_of_json(kept: Mapping[str, Any]) -> PoolTerms:
    """The reverse."""
    bounds = {Lane(name): float(seconds) for name, seconds in kept["bounds"].items()}
    known = {name: value for name, value in kept.items() if name in _LEAST_AND_MOST}
    return PoolTerms(**known, bounds=bounds)


def check_fits(pool: Pool) -> None:
    """Raise BadRequest for versions that can't be awake together, or can't all be in a dedicated pool."""
    if not 1 <= len(pool.members) <= MOST_VERSIONS:
        raise BadRequest(f"A pool has 1 to {MOST_VERSIONS} versions.", param="versions")
    pinned = sum(one.pinned for one in pool.members)
    if pinned > pool.terms.awake:
        message = f"{pinned} versions are pinned and {pool.terms.awake} may be awake: unpin one, or let more be awake."
        raise BadRequest(message, param="terms.awake")
    if pool.memory_bytes is None:
        return
    largest = sorted((one.memory_bytes or 0 for one in pool.members), reverse=True)[: pool.terms.awake]
    if sum(largest) > pool.memory_bytes:
        message = (
            f"The {len(largest)} largest versions need {sum(largest) / 1e9:.1f} GB together, and the pool has "
            f"{pool.memory_bytes / 1e9:.1f} GB: let fewer be awake at once."
        )
        raise BadRequest(message, param="terms.awake")
