"""Slices: the parts of a batch that one Celery task runs, and how their state may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from penstock.domain.accounts.account import account
from penstock.domain.adapter import Adapter
from penstock.domain.ensembles.ensemble import ChosenMember
from penstock.domain.reuse import Reuse
from penstock.domain.work.lane import Lane


class SliceState(StrEnum):
    """waiting: for others of its ensemble · queued: in the backlog · ready: hinted · running: under a lease ·
    done: settled · dropped: will not run."""

    WAITING = "waiting"

    QUEUED = "queued"
    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    DROPPED = "dropped"


# queued → ready → running → done; back to queued by demotion, reap or release; any open one may be dropped.
# A later member's waits before; a fold's only waits and runs, and waits again for members that it asks.
MOVES: Final = {
    SliceState.WAITING: {SliceState.QUEUED, SliceState.RUNNING, SliceState.DROPPED},
    SliceState.QUEUED: {SliceState.READY, SliceState.DROPPED},
    SliceState.READY: {SliceState.QUEUED, SliceState.RUNNING, SliceState.DROPPED},
    SliceState.RUNNING: {SliceState.QUEUED, SliceState.WAITING, SliceState.DONE, SliceState.DROPPED},
    SliceState.DONE: set(),
    SliceState.DROPPED: set(),
}

OPEN: Final = frozenset(state for state, becomes in MOVES.items() if becomes)


@dataclass(frozen=True)
class Cut:
    """A slice as the plan cuts it: a byte range of the plan copy, and what is in it."""

    model: str
    """The queue of the version that its lines stand for: the plain name for the first one."""
    plan_offset: int
    plan_bytes: int
    lines: int
    first_line: int
    last_line: int
    tokens: int
    """Estimated: input bytes over the model's bytes per token, plus the expected answer."""
    asked: str | None = None
    """What its lines name, where that is not what their engine is called."""
    adapter: str | None = None
    """The adapter that they ask, by its id; `model` is its base's queue."""
    chosen: ChosenMember | None = None
    """Of an ensemble's lines: the member that they went to."""

    @property
    def members(self) -> tuple[Cut, ...]:
        """Itself: its lines ask one model."""
        return (self,)

    @property
    def ensemble(self) -> int | None:
        """The id of the ensemble's version."""
        return self.chosen.ensemble_id if self.chosen else None

    @property
    def member(self) -> str | None:
        """The model that the ensemble names."""
        return self.chosen.model if self.chosen else None

    @property
    def waits(self) -> bool:
        """It is a later member's: its fold says if it is asked, and for which lines."""
        return self.chosen is not None and self.chosen.later

    @property
    def place(self) -> int | None:
        """The member's place in its ensemble."""
        return self.chosen.place if self.chosen else None


@dataclass(frozen=True)
class FoldCut:
    """Lines of an ensemble that gathers, as the plan cuts them: each member has a slice of the same byte range."""

    members: tuple[Cut, ...]


@dataclass(frozen=True)
class Claim:
    """A slice in a holder's hand: what to read, under which lease, and what earlier holders already recorded."""

    slice: int
    lease: int
    batch: str
    tenant: str
    endpoint: str
    model: str
    lane: Lane
    """Where it was claimed: one above its batch's own, if it was promoted."""
    deadline: datetime
    tokens: int
    """Estimated, of all its lines."""
    plan_key: str | None
    plan_offset: int
    plan_bytes: int
    inline: bytes | None
    lines: int
    first_line: int
    last_line: int
    recorded: frozenset[int]
    """Line numbers that are in accepted segments already: they are not asked again."""
    suspects: Mapping[int, int]
    """Lines that were in flight at engine deaths, with how many; see domain/work/suspicion.py."""
    crashes: int
    """How often a holder of this slice fell silent."""
    reuse: Reuse = field(default_factory=Reuse)
    asked: str | None = None
    """What its lines name, where that is not what their engine is called."""
    adapter: Adapter | None = None
    """What they need beside their engine."""
    chosen: ChosenMember | None = None
    """Of an ensemble's lines: the member that they went to, with the fields that it adds to theirs."""
    picked: frozenset[int] | None = None
    """The only lines of its range that are asked; None: all."""
    is_fold: bool = False
    """Nothing of it is asked: it makes one answer of what members said to each line."""

    @property
    def account(self) -> str:
        """Who takes turns with it."""
        return account(self.tenant, small=self.inline is not None)
