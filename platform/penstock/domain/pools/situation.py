"""A pool's situation: what waits for each of its versions, what is awake, and what a switch costs.

Times are seconds, tokens are what an engine reads and writes. A version is named by its queue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from penstock.domain.work.lane import Lane

DEFAULT_BOUNDS: Final = {Lane.PRIORITY: 600.0, Lane.STANDARD: 3_600.0}
"""How long the oldest work of a lane may wait for its version; flex waits for its deadline alone."""
UNKNOWN_TOKENS_PER_SECOND: Final = 1_000.0
"""Of a version that nobody has measured anywhere."""
UNKNOWN_SWITCH_SECONDS: Final = 60.0
"""Until a switch was measured; a slow start, so that it is not thought to be free."""


@dataclass(frozen=True)
class PoolTerms:
    """How a pool switches."""

    awake: int = 1
    """So many versions at once."""
    share_lost: float = 0.1
    """A version that has work stays for a switch's time divided by this: at most so much of the time is switching."""
    least_quantum_seconds: float = 20.0
    """It stays so long at least, where bounds make the quantum shorter."""
    linger_seconds: float = 2.0
    """A version without work stays so long before another takes its place."""
    bounds: Mapping[Lane, float] = field(default_factory=lambda: dict(DEFAULT_BOUNDS))
    call_bound_seconds: float = 60.0
    """Waiting calls of an on-demand version: so long, and the switch."""
    most_switches_for_calls: int = 20
    """In an hour."""

    def quantum_seconds(self, switch_seconds: float) -> float:
        """So long a stay that a switch to the next is no more than the share of the time that may be lost."""
        return switch_seconds / max(self.share_lost, 0.001)


@dataclass(frozen=True)
class Deadline:
    """Work that has to be done by then."""

    seconds: float
    """From now; negative once it has passed."""
    tokens: int
    """Of all work that is due by then."""


@dataclass(frozen=True)
class Waiting:
    """What waits for one version, dispatched or not; what is in an engine counts until it is answered."""

    tokens: int = 0
    oldest: Mapping[Lane, float] = field(default_factory=dict)
    """How long the oldest work of each lane has been without an engine, of the lanes that have any: since its batch
    came, or, once some of that was served, since the version was last awake (while it is awake: 0)."""
    deadlines: tuple[Deadline, ...] = ()
    """Soonest first; of many the soonest few are enough."""
    oldest_call: float | None = None
    """How long the oldest waiting call has waited; None: none does, or the version is not on demand."""


@dataclass(frozen=True)
class Resident:
    """A version that is awake."""

    queue: str
    awake_seconds: float
    """Since it was ready."""
    idle_seconds: float = 0.0
    """Since it had work last."""


@dataclass(frozen=True)
class PoolSituation:
    """All that a decision rests on."""

    terms: PoolTerms
    residents: tuple[Resident, ...]
    waiting: Mapping[str, Waiting]
    """By version, all that the pool may serve; those without work may be missing."""
    tokens_per_second: Mapping[str, float]
    """How fast each version is here."""
    switch_seconds: Mapping[str, float]
    """What it takes until each version is awake in place of another, the drain included."""
    pinned: frozenset[str] = frozenset()
    """Versions that an operator wants awake: they don't leave, and come first."""
    unfit: frozenset[str] = frozenset()
    """Versions that could not be started here twice."""
    switches_for_calls: int = 0
    """In the last hour."""
    lost_seconds: float = 0.0
    """Spent on switching in the last hour, for whatever reason."""

    def speed(self, queue: str) -> float:
        """A version's tokens a second, as far as is known."""
        return self.tokens_per_second.get(queue) or UNKNOWN_TOKENS_PER_SECOND

    def cost(self, queue: str) -> float:
        """What a switch to a version takes, in seconds, as far as is known."""
        return self.switch_seconds.get(queue, UNKNOWN_SWITCH_SECONDS)

    def work_seconds(self, queue: str) -> float:
        """What is left to do for a version, at its speed."""
        found = self.waiting.get(queue)
        return found.tokens / self.speed(queue) if found else 0.0
