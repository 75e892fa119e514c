"""The run context: what every run of slices in a worker works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from penstock.blobs.store import Blobs
from penstock.service.core.transaction import Database
from penstock.settings import Settings
from penstock_worker.budget.meter import Meter
from penstock_worker.engine_context import EngineContext
from penstock_worker.runtime.beat import Beat, Grip
from penstock_worker.runtime.patience import insist

R = TypeVar("R")


@dataclass(frozen=True)
class RunContext:
    """One worker's servers, engine, beat and settings."""

    db: Database
    blobs: Blobs
    engine: EngineContext
    beat: Beat
    settings: Settings
    meter: Meter = field(default_factory=Meter)
    """Told of the tokens of what is recorded."""

    def insist(self, call: Callable[[], R], grip: Grip | None = None) -> R:
        """Repeat a call that may be repeated until a server answers; raises as `patience.insist` does."""
        return insist(call, self.beat, self.settings.close_grace_seconds, grip)
