"""Workers: processes that do work, how each stands, and how much those of a model do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from penstock.domain.engines.engine_report import EngineReport
from penstock.domain.engines.engine_slots import EngineSlots


@dataclass(frozen=True)
class Worker:
    """One live process: kind gpu, io, keeper or pool; `slots` is the batch budget of a gpu worker's engine."""

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


class Order(StrEnum):
    """What an operator may tell a worker."""

    DRAIN = "drain"
    """Take nothing new; what is held goes on to its end."""
    UNDRAIN = "undrain"
    RESTART = "restart"
    """End the engine and start it again; what is held is given back."""


@dataclass(frozen=True)
class WorkerOrders:
    """The orders that stand in a process's row."""

    drain: bool = False
    restart: int = 0
    """The number of the last restart that was ordered; 0 before the first."""


class WorkerState(StrEnum):
    """How a process stands, for people."""

    STARTING = "starting"
    """Its engine is not ready."""
    READY = "ready"
    DRAINING = "draining"
    """It was told to drain, or ends, and has work left or has not heard it yet."""
    DRAINED = "drained"
    """It was told to drain, and holds nothing."""
    LOST = "lost"
    """Nothing was heard of it for as long as makes others take over its work."""
    GONE = "gone"
    """It has ended, and said so."""


@dataclass(frozen=True)
class WorkerView:
    """One process as an operator sees it; ages are by the database's clock."""

    id: UUID
    kind: str
    model: str | None
    serves: tuple[str, ...]
    """Every name that calls may use; empty if it takes none."""
    state: str
    """What it said last of itself."""
    host: str
    pid: int
    region: str
    version: str
    """Penstock's; empty if its code is from before it told."""
    started_at: datetime
    seen_at: datetime
    seen_seconds: float
    """Since anything was heard of it."""
    beat_seconds: float
    """Since it last prolonged its leases; no keeper does."""
    slots: int
    """Batch lines that its engine has room for; 0 if it has none."""
    leases: int
    """Slices, validations and assemblies that it holds."""
    calls: int
    lines: int
    budget: int
    tokens_per_second: float
    failed_starts: int
    engine_trouble: str | None
    orders: WorkerOrders
    restarts_done: int
    engine: str
    """The name of its engine's profile; empty without an engine, or if its code is from before it told."""
    lacks: tuple[str, ...]
    """What its engine can't do: see domain/engines/profile.py."""
    device: str = ""
    """What its engine computes on; empty without an engine, or if it does not say."""
    budget_reason: str = ""
    """Why `budget` stands where it stands; see domain/engines/engine_slots.py."""
    engine_report: EngineReport | None = None
    """What it said last of its engine; None without one, or if its code is from before it told."""

    @property
    def engine_slots(self) -> EngineSlots | None:
        """Who has which slot of its engine."""
        report = self.engine_report
        return None if report is None else report.parted(self.budget, self.budget_reason)

    def stands(self, gone_seconds: float) -> WorkerState:
        """How it stands, if whoever is silent for `gone_seconds` is taken for lost."""
        if self.state == "gone":
            return WorkerState.GONE
        if self.seen_seconds >= gone_seconds:
            return WorkerState.LOST
        if self.state == "draining":
            return WorkerState.DRAINING
        if self.state == "drained" and not self.leases and not self.calls:
            return WorkerState.DRAINED
        if self.state == "drained" or (self.state == "ready" and self.orders.drain):
            return WorkerState.DRAINING
        return WorkerState(self.state)

    @property
    def open_orders(self) -> list[Order]:
        """Orders that it has not done yet."""
        found = []
        if self.orders.drain and self.state in ("starting", "ready"):
            found.append(Order.DRAIN)
        if not self.orders.drain and self.state == "drained":
            found.append(Order.UNDRAIN)
        if self.orders.restart > self.restarts_done:
            found.append(Order.RESTART)
        return [] if self.state == "gone" else found

    def trouble(self, gone_seconds: float) -> str | None:
        """What is wrong with it, in a sentence."""
        now = self.stands(gone_seconds)
        if now is WorkerState.GONE:
            return None
        if now is WorkerState.LOST:
            silence = f"Nothing was heard of it for {self.seen_seconds:.0f} s"
            return f"{silence}: its process or machine is gone, or cut off from Postgres."
        if self.kind != "keeper" and self.beat_seconds >= gone_seconds:
            return f"It reports its load, but has not beaten for {self.beat_seconds:.0f} s: others take over its work."
        if self.failed_starts:
            times = "once" if self.failed_starts == 1 else f"{self.failed_starts} times in a row"
            return f"Its engine did not start, {times}: {self.engine_trouble}"
        if self.open_orders and not self.version:
            return "Its version does not read orders: end its process instead."
        return None
