"""What workers look like to an operator."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from penstock.api.schemas.shapes import unix
from penstock.domain.fleet.worker import WorkerState, WorkerView


class WorkerLoad(BaseModel):
    """What a worker has in hand, by its last report."""

    leases: int = Field(description="Slices that it holds; of an io worker, validations and assemblies.")
    lines: int = Field(description="Batch lines in its engine.")
    calls: int = Field(description="Waiting calls inside.")
    budget: int = Field(description="Batch lines that may be in its engine at the moment.")
    tokens_per_second: float = Field(description="Batch tokens recorded a second while lines were in its engine.")


class WorkerShape(BaseModel):
    """A process that does work; it has a new id at each start."""

    id: str
    object: Literal["worker"] = "worker"
    kind: Literal["gpu", "io", "keeper", "pool"] = Field(
        description="`pool`: the host of a pool, whose members are gpu."
    )
    model: str | None = Field(description="Of a gpu worker.")
    serves: list[str] = Field(description="Every name that waiting calls may use there: the model and its adapters.")
    state: Literal["starting", "ready", "draining", "drained", "lost", "gone"] = Field(
        description="`draining`: it takes nothing new (or has not heard so yet) and has work left; `drained`: it has"
        " none. `lost`: nothing was heard of it for `PENSTOCK_WORKER_GONE_SECONDS`. `gone`: it has ended."
    )
    orders: list[Literal["drain", "undrain", "restart"]] = Field(description="What it was told and has not done yet.")
    trouble: str | None = Field(description="What is wrong with it, in a sentence.")
    host: str
    pid: int
    region: str
    version: str = Field(description="Penstock's.")
    started_at: int = Field(description="Unix seconds.")
    last_seen_at: int = Field(description="Unix seconds.")
    last_seen_seconds: float = Field(description="So long ago, by the database's clock.")
    slots: int = Field(description="Batch lines that its engine has room for; 0 without an engine.")
    engine: str | None = Field(description="The profile of its engine: `vllm`, `remote` and so on; null without one.")
    lacks: list[str] = Field(description="What its engine can't do, and the platform does without; `docs/engines.md`.")
    load: WorkerLoad | None = Field(description="Null once it is lost or gone.")


def worker(one: WorkerView, gone_seconds: float) -> WorkerShape:
    """A worker's shape; whoever was not heard of for so long is lost."""
    now = one.stands(gone_seconds)
    load = WorkerLoad(
        leases=one.leases,
        lines=one.lines,
        calls=one.calls,
        budget=one.budget,
        tokens_per_second=round(one.tokens_per_second, 1),
    )
    return WorkerShape.model_validate(
        {
            "id": str(one.id),
            "kind": one.kind,
            "model": one.model,
            "serves": list(one.serves),
            "state": str(now),
            "orders": [str(order) for order in one.open_orders],
            "trouble": one.trouble(gone_seconds),
            "host": one.host,
            "pid": one.pid,
            "region": one.region,
            "version": one.version,
            "started_at": unix(one.started_at),
            "last_seen_at": unix(one.seen_at),
            "last_seen_seconds": round(max(0.0, one.seen_seconds), 1),
            "slots": one.slots,
            "engine": one.engine or None,
            "lacks": list(one.lacks),
            "load": None if now in (WorkerState.LOST, WorkerState.GONE) else load,
        }
    )
