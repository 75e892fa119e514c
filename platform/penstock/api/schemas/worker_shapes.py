"""What workers look like to an operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, Field

from penstock.api.schemas.shapes import unix
from penstock.domain.engines.engine_report import EngineReport
from penstock.domain.engines.latency_histogram import percentile_ms
from penstock.domain.fleet.worker import WorkerState, WorkerView
from penstock.domain.work.lane import LANES


class WorkerLoad(BaseModel):
    """What a worker has in hand, by its last report."""

    leases: int = Field(description="Slices that it holds; of an io worker, validations and assemblies.")
    lines: int = Field(description="Batch lines in its engine.")
    calls: int = Field(description="Waiting calls inside.")
    budget: int = Field(description="Batch lines that may be in its engine at the moment.")
    tokens_per_second: float = Field(description="Batch tokens recorded a second while lines were in its engine.")


class LaneCounts(BaseModel):
    """One number for each lane."""

    priority: int
    standard: int
    flex: int


class EngineSlotsShape(BaseModel):
    """Who has each slot of an engine: `total` is the sum of the others. A slot is for one sequence."""

    total: int = Field(description="What the engine runs at once, the room for waiting calls included.")
    calls: int = Field(description="Held by waiting calls.")
    lines: LaneCounts = Field(description="Held by batch lines; calls of the tier `flex` count in lane flex.")
    free: int = Field(description="Open to the next batch line.")
    closed: int = Field(description="Free, and closed to batch lines for now by the budget or the gate.")
    reserved: int = Field(description="Free, and kept for waiting calls.")
    closed_because: str | None = Field(description="Why some are closed, in a sentence; null if none is.")
    budget_reason: str = Field(description="The budget loop's word for where its budget stands: `all`, `kv` and so on.")


class GateQueue(LaneCounts):
    """Who waits for a slot."""

    calls: int


class TtftShape(BaseModel):
    """Times to first token of streamed waiting calls in the last minute, seen at the worker, right to an eighth."""

    calls: int
    p50_ms: float | None = Field(description="Milliseconds; null without calls.")
    p95_ms: float | None = Field(description="Milliseconds; null without calls.")


class EngineNow(BaseModel):
    """What an engine says of itself, with rates of the last minute; null is what it does not say."""

    kv_usage: float | None = Field(description="Part of its KV cache in use, 0 to 1.")
    preemptions: int | None = Field(description="Requests that it threw out of its cache, since it began.")
    prefix_hit_rate: float | None = Field(
        description="Part of the prompt tokens that were in its prefix cache, 0 to 1; null if none was looked up."
    )
    input_tokens_per_second: float | None = Field(description="Prompt tokens, of calls and lines together.")
    output_tokens_per_second: float | None = Field(description="Generated tokens, of calls and lines together.")
    ttft: TtftShape


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
    device: str | None = Field(description="What its engine computes on, if it says so.")
    last_beat_seconds: float | None = Field(
        description="Since it last prolonged its leases, by the database's clock; null for keepers, which hold none."
    )
    load: WorkerLoad | None = Field(description="Null once it is lost or gone.")
    engine_slots: EngineSlotsShape | None = Field(description="Null without an engine, and once it is lost or gone.")
    waiting: GateQueue | None = Field(description="Who waits in the worker for a slot of its engine; null likewise.")
    engine_now: EngineNow | None = Field(description="Null likewise.")


def worker(one: WorkerView, gone_seconds: float) -> WorkerShape:
    """A worker's shape; whoever was not heard of for so long is lost."""
    now = one.stands(gone_seconds)
    silent = now in (WorkerState.LOST, WorkerState.GONE)
    report = None if silent else one.engine_report
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
            "device": one.device or None,
            "last_beat_seconds": None if one.kind == "keeper" else round(max(0.0, one.beat_seconds), 1),
            "load": None if silent else load,
            "engine_slots": engine_slots(report, one) if report else None,
            "waiting": lanes(report.waiting) | {"calls": report.waiting.get("calls", 0)} if report else None,
            "engine_now": engine_now(report) if report else None,
        }
    )


def lanes(counts: Mapping[str, int]) -> dict[str, int]:
    """A number for each lane, 0 where there is none."""
    return {str(lane): counts.get(lane, 0) for lane in LANES}


def engine_slots(report: EngineReport, one: WorkerView) -> EngineSlotsShape:
    """Who has which slot of a worker's engine."""
    found = report.parted(one.budget, one.budget_reason)
    values = vars(found) | {"lines": lanes(found.lines), "budget_reason": one.budget_reason}
    return EngineSlotsShape.model_validate(values)


def ttft(histogram: Sequence[int]) -> TtftShape:
    """What a latency histogram says."""
    p50, p95 = (percentile_ms(histogram, part) for part in (0.5, 0.95))
    return TtftShape(
        calls=sum(histogram),
        p50_ms=None if p50 is None else round(p50, 1),
        p95_ms=None if p95 is None else round(p95, 1),
    )


def engine_now(report: EngineReport) -> EngineNow:
    """What an engine says of itself."""
    return EngineNow(
        kv_usage=report.kv_usage,
        preemptions=report.preemptions,
        prefix_hit_rate=report.prefix_hit_rate,
        input_tokens_per_second=report.input_tokens_per_second,
        output_tokens_per_second=report.output_tokens_per_second,
        ttft=ttft(report.ttft),
    )
