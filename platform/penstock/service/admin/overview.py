"""The overview: what an operator wants to know first: backlog, promises, who works, what is late, what is missing.

Four statements, none of which reads history: what is open, who is live, what was promised, what is asleep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from penstock.domain.engines.latency_histogram import added, percentile_ms
from penstock.domain.fleet.worker import WorkerState, WorkerView
from penstock.domain.work.lane import LANES, Lane
from penstock.domain.work.open_work import AllOpen, LateBatch, OpenLane, RunningBatch
from penstock.service.core.transaction import Transaction
from penstock.settings.dispatch import DispatchSettings
from penstock.store.fleet import models, workers
from penstock.store.pools import pools, residents
from penstock.store.work import open_work

MOST_LATE: Final = 20
MOST_WORKERS: Final = 5_000
MOST_MISSING: Final = 50
_HOUR: Final = 3_600.0


@dataclass(frozen=True)
class ModelOverview:
    """One model (a version of one, where there are versions) at this moment."""

    model: str
    lanes: Mapping[Lane, OpenLane]
    """Those with open work."""
    lines: int
    tokens: float
    """Open, by estimate."""
    hours: float | None
    """What they take at the measured rate; None if nobody works on it, or none has measured itself."""
    input_tokens_per_second: float
    output_tokens_per_second: float
    """Of the last minute, calls included, where engines say so."""
    batch_tokens_per_second: float
    """What its workers recorded while they had lines: what `hours` goes by."""
    calls: int
    """Waiting calls inside its workers."""
    lines_in_engine: int
    ttft: tuple[int, ...]
    """A latency histogram of the last minute."""
    promised_ttft_ms: float | None
    workers: int
    """Ready ones."""
    starting: int
    asleep: int
    """Hosts of pools on which it is asleep."""
    slots: int
    slots_used: int

    @property
    def ttft_p50_ms(self) -> float | None:
        """Of the last minute; None without calls."""
        return percentile_ms(self.ttft, 0.5)

    @property
    def ttft_p95_ms(self) -> float | None:
        """Of the last minute; None without calls."""
        return percentile_ms(self.ttft, 0.95)

    @property
    def keeps_promise(self) -> bool | None:
        """Whether the last minute's calls had their first token in the promised time; None if nothing says."""
        met = self.ttft_p95_ms
        return None if met is None or self.promised_ttft_ms is None else met <= self.promised_ttft_ms


@dataclass(frozen=True)
class Missing:
    """Something that keeps work or calls from going on, and what mends it."""

    what: str
    """`keeper`, `io_worker`, `gpu_worker`, `engine`, `worker`, `ingress_token`, `blobs`."""
    sentence: str
    mend: str
    model: str | None = None


@dataclass(frozen=True)
class Overview:
    """The platform at one moment."""

    models: tuple[ModelOverview, ...]
    lanes: Mapping[Lane, OpenLane]
    late_count: int
    late: tuple[LateBatch, ...]
    missing: tuple[Missing, ...]
    now: datetime


@dataclass(frozen=True)
class LaneNow:
    """A lane over all models."""

    lane: Lane
    open: OpenLane
    slots_used: int
    share: float | None
    """Of the slots that batch lines hold; None if none is held."""
    running_batches: int
    running: tuple[RunningBatch, ...]
    """The largest of them."""


def look(tx: Transaction, settings: DispatchSettings, blobs_good: bool = True) -> Overview:
    """The platform now. `blobs_good` is what the process knows of the blob store: no statement says that."""
    gone = timedelta(seconds=settings.worker_gone_seconds)
    found = open_work.read(tx.conn, gone=gone, late=MOST_LATE)
    fleet = workers.page(tx.conn, gone=False, after=None, limit=MOST_WORKERS)
    sleeping = residents.asleep(tx.conn, gone=gone)
    promised = models.promised_seconds(tx.conn)
    seen = by_model(found, fleet, promised, sleeping, settings.worker_gone_seconds)
    needed = [one.model for one in seen if one.lines and not one.workers]
    woken = set(pools.servable(tx.conn, needed, gone=gone)) if needed else set()
    unserved = [one for one in seen if one.model in needed and one.model not in woken]
    missing = _missing(fleet, unserved, blobs_good, settings.worker_gone_seconds)
    return Overview(seen, of_all(found), found.late_count, found.late, tuple(missing[:MOST_MISSING]), found.now)


def lanes(tx: Transaction, settings: DispatchSettings, most: int) -> list[LaneNow]:
    """Each lane now, with so many of the batches that run in it; three statements."""
    gone = timedelta(seconds=settings.worker_gone_seconds)
    found = of_all(open_work.read(tx.conn, gone=gone, late=0))
    fleet = workers.page(tx.conn, gone=False, after=None, limit=MOST_WORKERS)
    used = dict.fromkeys(LANES, 0)
    for one in _live(fleet, settings.worker_gone_seconds):
        if one.engine_report:
            for lane in LANES:
                used[lane] += one.engine_report.lines.get(lane, 0)
    running = open_work.running(tx.conn)
    total = sum(used.values())
    return [
        LaneNow(
            lane=lane,
            open=found.get(lane) or _nothing(lane),
            slots_used=used[lane],
            share=used[lane] / total if total else None,
            running_batches=next((one.in_lane for one in running if one.lane is lane), 0),
            running=tuple(one for one in running if one.lane is lane)[:most],
        )
        for lane in LANES
    ]


def of_all(found: AllOpen) -> dict[Lane, OpenLane]:
    """What is open by lane, over all models."""
    return {one.lane: one for one in found.lanes if one.model is None}


def by_model(
    found: AllOpen,
    fleet: Sequence[WorkerView],
    promised: Mapping[str, float],
    sleeping: Mapping[str, int],
    gone_seconds: float,
) -> tuple[ModelOverview, ...]:
    """Every model that has open work, a live worker or a host on which it is asleep."""
    live = [one for one in _live(fleet, gone_seconds) if one.kind == "gpu"]
    names = {one.model for one in found.lanes if one.model} | {one.model for one in live if one.model} | set(sleeping)
    return tuple(
        _model(
            name,
            {one.lane: one for one in found.lanes if one.model == name},
            [one for one in live if one.model == name],
            promised.get(name),
            sleeping.get(name, 0),
        )
        for name in sorted(names)
    )


def _model(
    name: str, open: Mapping[Lane, OpenLane], live: Sequence[WorkerView], promised: float | None, asleep: int
) -> ModelOverview:
    ready = [one for one in live if one.state == "ready"]
    reports = [one.engine_report for one in live if one.engine_report]
    slots = [one.engine_slots for one in live if one.engine_slots]
    measured = [one.tokens_per_second for one in ready if one.tokens_per_second > 0]
    rate = len(ready) * sum(measured) / len(measured) if measured else 0.0
    tokens = sum(one.tokens for one in open.values())
    return ModelOverview(
        model=name,
        lanes=open,
        lines=sum(one.lines for one in open.values()),
        tokens=tokens,
        hours=tokens / rate / _HOUR if rate else (0.0 if not tokens else None),
        input_tokens_per_second=sum(one.input_tokens_per_second or 0.0 for one in reports),
        output_tokens_per_second=sum(one.output_tokens_per_second or 0.0 for one in reports),
        batch_tokens_per_second=rate,
        calls=sum(one.calls for one in live),
        lines_in_engine=sum(one.lines for one in live),
        ttft=added(one.ttft for one in reports),
        promised_ttft_ms=None if promised is None else promised * 1000,
        workers=len(ready),
        starting=sum(one.state == "starting" for one in live),
        asleep=asleep,
        slots=sum(one.total for one in slots),
        slots_used=sum(one.used for one in slots),
    )


def _missing(
    fleet: Sequence[WorkerView], unserved: Sequence[ModelOverview], blobs_good: bool, gone_seconds: float
) -> list[Missing]:
    live = _live(fleet, gone_seconds)
    kinds = {one.kind for one in live}
    found = []
    if "keeper" not in kinds:
        found.append(Missing("keeper", "No keeper ticks: nothing is dealt out, reaped or expired.", "penstock keeper"))
    if not any(one.kind == "io" and one.state == "ready" for one in live):
        said = "No io worker takes work: files are not validated, results not written, webhooks not sent."
        found.append(Missing("io_worker", said, "penstock io"))
    if not blobs_good:
        mend = "penstock doctor, or mend PENSTOCK_BLOB_URL"
        found.append(Missing("blobs", "The blob store does not work, seen from this API process.", mend))
    for one in unserved:
        said = f"No ready worker serves {one.model}: {one.lines:,} lines wait for one."
        found.append(Missing("gpu_worker", said, f"penstock worker --model {one.model}=FOLDER_OR_HF_ID", one.model))
    return found + [missing for one in fleet if (missing := _of_worker(one, gone_seconds))]


def _of_worker(one: WorkerView, gone_seconds: float) -> Missing | None:
    if trouble := one.trouble(gone_seconds):
        what = "engine" if one.failed_starts else "worker"
        lost = one.stands(gone_seconds) is WorkerState.LOST
        mend = f"look at its log on {one.host}" if not lost else f"start it again on {one.host}"
        return Missing(what, f"{one.kind} worker {one.id} on {one.host}: {trouble}", mend, one.model)
    if one.kind == "gpu" and one.state == "ready" and not one.serves:
        said = f"gpu worker {one.id} on {one.host} takes no waiting calls."
        return Missing("ingress_token", said, "set the same PENSTOCK_INGRESS_TOKEN for APIs and workers", one.model)
    return None


def _live(fleet: Iterable[WorkerView], gone_seconds: float) -> list[WorkerView]:
    return [one for one in fleet if one.stands(gone_seconds) not in (WorkerState.LOST, WorkerState.GONE)]


def _nothing(lane: Lane) -> OpenLane:
    return OpenLane(None, lane, 0, 0, 0.0, 0, None)
