"""Workers: processes that do work, and how much those of a model do."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True)
class Worker:
    """One live process: kind gpu, io or keeper; `slots` is the batch budget of a gpu worker's engine."""

    id: UUID
    kind: str
    model: str | None
    state: str
    slots: int
    host: str
    pid: int
    failed_starts: int
    """How often in a row its engine has ended before it was ready."""
    engine_trouble: str | None
    """Why it did so last, in the engine's own words."""


@dataclass(frozen=True)
class WorkerPace:
    """How much the live workers of a model do; as it stands, none is known."""

    workers: int = 0
    tokens_per_second: float | None = None
    """Of one of them; None if none has measured itself."""
    lines_at_once: int = 0
    """Of all of them together; 0 if it is not known."""
