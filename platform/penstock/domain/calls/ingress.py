"""Ingresses: where gpu workers take waiting calls, how loaded each is, and what its model's callers were promised."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from penstock.domain.engines.engine_report import EngineReport


@dataclass(frozen=True)
class Load:
    """A worker at one moment, as its load report says it."""

    open: bool
    """Whether it takes new calls: its engine is ready, it is not ending, and no suspects are tried."""
    calls: int
    """Waiting calls inside: in the engine or in line for it."""
    lines: int
    """Batch lines in the engine."""
    budget: int
    """How many batch lines may be in the engine at the moment."""
    reason: str
    """Why the budget stands there; see penstock_worker/budget/line_budget.py."""
    tokens_per_second: float
    """Batch tokens (input and output, as the engine counts them) recorded per second while lines were in flight."""
    engine: EngineReport | None = field(default=None, compare=False)
    """What people see of the engine; routers are not told."""


@dataclass(frozen=True)
class Slo:
    """What a model's waiting calls were promised; None: nothing."""

    ttft_p95_ms: int | None = None
    itl_p95_ms: int | None = None

    @property
    def seconds(self) -> dict[str, float]:
        """The promises that were made, `ttft` and `itl`, in seconds."""
        limits = {"ttft": self.ttft_p95_ms, "itl": self.itl_p95_ms}
        return {name: ms / 1000 for name, ms in limits.items() if ms is not None}


@dataclass(frozen=True)
class Ingress:
    """One worker that takes waiting calls."""

    worker: UUID
    model: str
    serves: tuple[str, ...]
    """Every name that calls may use: the model and its adapters."""
    url: str
    """Base address, e.g. `http://10.0.0.7:8400`."""
    region: str
    slots: int
    """Requests that its engine runs at once, room for waiting calls included."""
    load: Load
    revision: str = ""
    """What makes its engine's answers its own; empty if it is not known."""
    lacks: tuple[str, ...] = ()
    """What its engine can't do: see domain/engines/profile.py."""
    shared: bool = False
    """It is a member of a shared pool: others wait for its place."""
