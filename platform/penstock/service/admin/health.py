"""Health: whether this process can answer, and whether a batch could run now; what is missing is named."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from penstock.blobs.readiness import BlobReadiness
from penstock.domain.api_errors import Unavailable
from penstock.domain.fleet.worker import Worker
from penstock.domain.webhook import WebhookBacklog
from penstock.service.admin import overview
from penstock.service.admin.overview import Overview
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.settings.dispatch import DispatchSettings
from penstock.store import deliveries
from penstock.store.batches import batches
from penstock.store.fleet import workers
from penstock.store.pools import pools
from penstock.store.work import counts, leases, open_work, slices


@dataclass(frozen=True)
class Gauges:
    """The platform at one moment, for metrics."""

    backlog: list[tuple[str, str, str, int, int, int]]
    """(model, lane, state, slices, lines, tokens)"""
    workers: Counter[tuple[str, str, str]]
    """(kind, model, state)"""
    leases: dict[str, int]
    counts: dict[str, int]
    """How often rare things happened, by name."""
    webhooks: WebhookBacklog
    """Events that are owed to webhook endpoints."""
    batches: list[tuple[str, str, str, int]]
    """Those that have not ended: (kind, state, lane, how many)."""
    overview: Overview
    failed_starts: dict[str, int]
    """By model: how often in a row an engine did not start, at the worker that stands worst."""


async def missing_to_be_ready(db: AsyncDatabase, blobs: BlobReadiness) -> list[str]:
    """What keeps the API from answering: `postgres`, `blobs`."""
    missing = []
    try:
        await db.autocommit(_ask)
    except Unavailable:
        missing.append("postgres")
    if not await blobs.good():
        missing.append("blobs")
    return missing


def _ask(tx: Transaction) -> None:
    batches.now(tx.conn)


def live(tx: Transaction, gone_seconds: float) -> list[Worker]:
    """The processes that were seen within so many seconds."""
    return workers.live(tx.conn, gone=timedelta(seconds=gone_seconds))


def missing_to_work(tx: Transaction, model: str | None, settings: DispatchSettings) -> list[str]:
    """What keeps a batch (of this model) from running now: `keeper`, `io worker`, `gpu worker`.

    A version that a live pool may serve needs no worker now: it is woken when its turn comes.
    """
    found = live(tx, settings.worker_gone_seconds)
    kinds = {worker.kind for worker in found}
    missing = [name for kind, name in (("keeper", "keeper"), ("io", "io worker")) if kind not in kinds]
    gpus = [worker for worker in found if worker.kind == "gpu" and model in (None, worker.model)]
    gone = timedelta(seconds=settings.worker_gone_seconds)
    in_pools = pools.servable(tx.conn, None if model is None else [model], gone=gone)
    if not in_pools and not any(worker.state == "ready" for worker in gpus):
        name = "gpu worker" if model is None else f"gpu worker for {model!r}"
        failed = max((worker.failed_starts for worker in gpus), default=0)
        if failed:
            name += f" (its engine did not start, {failed} times in a row: see its log)"
        elif any(worker.state == "drained" for worker in gpus):
            name += " (drained)"
        missing.append(name)
    return missing


def gauges(tx: Transaction, settings: DispatchSettings) -> Gauges:
    """Count what is open and who is live."""
    fleet = live(tx, settings.worker_gone_seconds)
    failed_starts = {w.model: 0 for w in fleet if w.model}
    for w in fleet:
        if w.model:
            failed_starts[w.model] = max(failed_starts[w.model], w.failed_starts)
    return Gauges(
        backlog=slices.backlog(tx.conn),
        workers=Counter((w.kind, w.model or "", w.state) for w in fleet),
        leases=leases.open_count(tx.conn),
        counts=counts.read(tx.conn),
        webhooks=deliveries.backlog(tx.conn),
        batches=open_work.batches(tx.conn),
        overview=overview.look(tx, settings),
        failed_starts=failed_starts,
    )
