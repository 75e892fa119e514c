"""Batch views: what a caller sees of batches and jobs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from penstock.domain.accounts.eta import Expectation
from penstock.domain.api_errors import NotFound
from penstock.domain.line_errors import WHY_UNANSWERED
from penstock.domain.webhook import Endpoint
from penstock.domain.work.batch import Batch, BatchState
from penstock.formats import input as lines
from penstock.formats import output, plan
from penstock.service.core import cursor
from penstock.service.core.transaction import Transaction
from penstock.service.estimates import eta
from penstock.service.pools import wake_times
from penstock.settings import Settings
from penstock.settings.dispatch import DispatchSettings
from penstock.store import webhooks
from penstock.store.batches import batch_reads, batches
from penstock.store.cursors import Listed
from penstock.store.fleet import workers
from penstock.store.work import pending_batches, segments

MOST_CHILDREN: Final = 100


@dataclass(frozen=True)
class WhyWaiting:
    """Why an open batch makes no progress: `no_worker` for these models, they are `asleep`, or `no_io_worker`."""

    reason: str
    models: tuple[str, ...] = ()
    sentence: str | None = None
    """What is before it, where a version is asleep."""


@dataclass(frozen=True)
class BatchView:
    """A batch as its caller sees it; `results` are output lines, of an ended inline job only."""

    batch: Batch
    waiting: WhyWaiting | None = None
    expected: Expectation | None = None
    results: tuple[bytes, ...] | None = None
    children: tuple[str, ...] | None = None
    """The batches that repeat lines of it; None where nobody looked."""
    webhook: Endpoint | None = None
    """Its own; null in lists."""
    secret: str | None = None
    """The webhook's, at the one moment at which it is told."""


def view(tx: Transaction, tenant: str, kind: str, id: str, settings: Settings) -> BatchView:
    """One batch or job, why it waits, when it is expected, and its results if they are in rows; raise NotFound."""
    found = batch_reads.look(tx.conn, tenant, id, children=MOST_CHILDREN)
    if found is None or found.batch.kind != kind:
        raise NotFound(kind, id, param=f"{kind}_id")
    batch = found.batch
    return dataclasses.replace(
        seen(tx, batch, settings),
        results=tuple(results(tx, batch)) if batch.inline and batch.ended else None,
        children=found.children if batch.ended else (),
        webhook=webhooks.of_batch(tx.conn, tenant, id) if found.has_webhook else None,
    )


def seen(tx: Transaction, batch: Batch, settings: Settings) -> BatchView:
    """A batch or job that was just made, why it waits, and when it is expected to have its answers."""
    return BatchView(batch, _waiting(tx, batch, settings), eta.expect(tx, batch, settings))


def page(tx: Transaction, tenant: str, kind: str, *, after: str | None, limit: int) -> list[Batch]:
    """A tenant's batches or jobs, newest first, after the one named, which may be gone; raise NotFound."""
    place = cursor.place(tx, tenant, Listed(kind), after)
    return batches.page(tx.conn, tenant, kind=kind, after=place, limit=limit)


def results(tx: Transaction, batch: Batch) -> list[bytes]:
    """The output lines of an ended inline job in input order; lines without an answer say why."""
    return [result for _, result in asked_and_answered(tx, batch)]


def asked_and_answered(tx: Transaction, batch: Batch) -> list[tuple[bytes, bytes]]:
    """The same with each line as it was asked."""
    framed, pieces = segments.of_job(tx.conn, batch.id)
    recorded = {number: line for data in pieces for number, line in plan.unframe(data)}
    reason = WHY_UNANSWERED[batch.state]
    return [
        (line, recorded.get(number) or output.unanswered_line(batch.id, number, lines.custom_id_of(line), reason))
        for number, line in sorted(plan.unframe(framed))
    ]


def _waiting(tx: Transaction, batch: Batch, settings: DispatchSettings) -> WhyWaiting | None:
    gone = timedelta(seconds=settings.worker_gone_seconds)
    if batch.state is BatchState.IN_PROGRESS:
        return _for_models(tx, batch, pending_batches.waiting_models(tx.conn, batch.id, gone=gone), settings)
    if batch.state in (BatchState.VALIDATING, BatchState.FINALIZING):
        alive = any(worker.kind == "io" for worker in workers.live(tx.conn, gone=gone))
        return None if alive else WhyWaiting("no_io_worker")
    return None


def _for_models(
    tx: Transaction, batch: Batch, queues: Mapping[str, str], settings: DispatchSettings
) -> WhyWaiting | None:
    """Those that nobody will serve unless an operator does something are told first.

    Models that the key which made the batch may not ask are not named.
    """
    if not queues:
        return None
    asleep = wake_times.asleep(tx, queues.values(), settings)
    unserved = tuple(name for name, queue in queues.items() if queue not in asleep)
    if unserved:
        return WhyWaiting("no_worker", unserved)
    allowed = None if batch.allowed_models is None else frozenset(batch.allowed_models)
    return WhyWaiting("asleep", tuple(queues), "; ".join(asleep[one].sentence(allowed) for one in queues.values()))
