"""Open work over all tenants: what is left by lane and model, what will be late, and what runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from penstock.domain.work.lane import Lane


@dataclass(frozen=True)
class OpenLane:
    """Open work of a lane, of one model or (None) of all."""

    model: str | None
    lane: Lane
    batches: int
    """Batches and jobs with lines that are not answered."""
    lines: int
    """Lines that are not answered, without those of paused batches."""
    tokens: float
    """Theirs, as the engine will count them, by estimate."""
    paused_lines: int
    waiting_seconds: float | None
    """Since the oldest batch was created of which nothing runs; None if something of each runs."""
    late: int = 0
    """Of the batches: those whose lines here are expected after the deadline, if lanes are served by deadline."""
    slack_seconds: float | None = None
    """Of the batch that has least: the time to its deadline, less what goes before it and it take; None without any."""


@dataclass(frozen=True)
class LateBatch:
    """A batch that is expected after its deadline, if its lane is served by deadline."""

    batch: str
    tenant: str
    lane: Lane
    models: tuple[str, ...]
    deadline: datetime
    expected_at: datetime


@dataclass(frozen=True)
class AllOpen:
    """All that is open."""

    lanes: tuple[OpenLane, ...]
    late_count: int
    late: tuple[LateBatch, ...]
    """The first of them, by deadline."""
    now: datetime


@dataclass(frozen=True)
class RunningBatch:
    """A batch of which workers hold slices."""

    lane: Lane
    batch: str
    tenant: str
    models: tuple[str, ...]
    slices: int
    workers: int
    lines: int
    """Of those slices: lines that are not answered."""
    since: datetime
    """When the oldest of the slices was taken."""
    in_lane: int
    """How many such batches its lane has."""
