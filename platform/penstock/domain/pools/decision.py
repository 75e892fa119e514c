"""A decision of a pool: who leaves, who comes, and why, with what it was based on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Why(StrEnum):
    """Why a version leaves, or why none does."""

    NO_WORK = "no_work"
    """Nothing waits for anybody who is not awake."""
    STAYS = "stays"
    """Whoever is awake has work, and its quantum is not over, or nobody else is worth the switch."""
    FREE_PLACE = "free_place"
    """Fewer are awake than may be."""
    IDLE = "idle"
    """The one who leaves has no work, and lingered."""
    QUANTUM = "quantum"
    """Its quantum is over, and another is worth more."""
    BOUND = "bound"
    """Another's oldest work has waited as long as its lane may."""
    DEADLINE = "deadline"
    """Another's work would be late, and can still be in time."""
    CALL = "call"
    """A waiting call asks for an on-demand version."""
    PINNED = "pinned"
    """An operator wants it awake."""


@dataclass(frozen=True)
class Unkept:
    """A bound or deadline that can't be kept, whatever is decided."""

    queue: str
    lane: str
    """A lane, `call` or `deadline`."""
    bound_seconds: float
    expected_seconds: float
    """When its turn is likely to come, waited time included."""


@dataclass(frozen=True)
class PoolDecision:
    """What is to be done now."""

    why: Why
    leaves: str | None = None
    """None: nobody, or there is a free place."""
    comes: str | None = None
    """None: nobody, all stay."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Of the versions that were weighed: what each is worth."""
    quantum_seconds: float = 0.0
    """That of whoever is awake, after bounds have shortened it."""
    unkept: tuple[Unkept, ...] = ()
