"""Batch views: what a caller sees of batches and jobs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from penstock.domain.accounts.eta import Expectation
from penstock.domain.api_errors import NotFound
from penstock.domain.line_errors import WHY_UNANSWERED
from penstock.domain.webhook import Endpoint
from penstock.domain.work.batch import Batch
from penstock.domain.work.waiting import WhyWaiting
from penstock.formats import input as lines
from penstock.formats import output, plan
from penstock.service.core.transaction import Transaction
from penstock.service.estimates import outlook
from penstock.settings import Settings
from penstock.store import webhooks
from penstock.store.batches import batch_reads
from penstock.store.work import segments

MOST_CHILDREN: Final = 100


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
    found = outlook.of(tx, batch, settings)
    return BatchView(batch, found.waiting, found.expected)


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
