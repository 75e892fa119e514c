"""A switch: how far a decision is carried out.

decided   written down; nothing has happened
leaving   whoever leaves takes nothing new, and finishes or gives back what it has
stopping  its engine is put to sleep or ended
waking    whoever comes is woken or started
probing   it is asked for one token
done · failed · cancelled   its ends
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from penstock.domain.pools.situation import UNKNOWN_SWITCH_SECONDS


class SwitchState(StrEnum):
    """How far it is."""

    DECIDED = "decided"
    LEAVING = "leaving"
    STOPPING = "stopping"
    WAKING = "waking"
    PROBING = "probing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED: Final = frozenset({SwitchState.DONE, SwitchState.FAILED, SwitchState.CANCELLED})
MAY_BE_CANCELLED: Final = frozenset({SwitchState.DECIDED, SwitchState.LEAVING})
"""Its engine has not begun to stop."""
_END: Final = {SwitchState.DONE, SwitchState.FAILED}

MOVES: Final[Mapping[SwitchState, set[SwitchState]]] = {
    SwitchState.DECIDED: {
        SwitchState.LEAVING,
        SwitchState.STOPPING,
        SwitchState.WAKING,
        SwitchState.CANCELLED,
        *_END,
    },
    SwitchState.LEAVING: {SwitchState.STOPPING, SwitchState.WAKING, SwitchState.CANCELLED, *_END},
    SwitchState.STOPPING: {SwitchState.WAKING, *_END},
    SwitchState.WAKING: {SwitchState.PROBING, *_END},
    SwitchState.PROBING: {SwitchState.WAKING, *_END},
    SwitchState.DONE: set(),
    SwitchState.FAILED: set(),
    SwitchState.CANCELLED: set(),
}
"""From probing back to waking: a probe that fails ends in a cold start."""


@dataclass(frozen=True)
class PoolSwitch:
    """A decision of a host, and what became of it."""

    id: int
    pool: str
    host: UUID
    at: datetime
    why: str
    leaves: str | None
    comes: str | None
    method: str
    """How: restart, sleep."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What it was based on: scores, quantum_seconds, unkept, waiting by version."""
    state: SwitchState = SwitchState.DECIDED
    ended_at: datetime | None = None
    seconds: float | None = None
    """From the decision to the first token; None until it is done."""
    error: str | None = None


DEFAULT_SECONDS: Final[Mapping[str, float]] = {
    "vllm": 60.0,
    "transformers": 30.0,
    "llamacpp": 5.0,
    "echo": 3.0,
    "remote": 2.0,
}
"""What a restart takes until it was measured, by engine profile: a start, and a short drain before it."""


def switch_seconds(engine: str, measured: float | None) -> float:
    """What a switch to a version with this engine takes."""
    return DEFAULT_SECONDS.get(engine, UNKNOWN_SWITCH_SECONDS) if measured is None else measured
