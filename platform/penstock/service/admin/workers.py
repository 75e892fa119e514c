"""Workers by the operator's word: who there is, how each stands, and what it is told to do.

An order is written into the worker's row; it reads it with its beat, so it is obeyed within `beat_seconds`.
"""

from __future__ import annotations

from uuid import UUID

from penstock.domain.api_errors import Conflict, NotFound
from penstock.domain.fleet.worker import Order, WorkerView
from penstock.service.core import audit
from penstock.service.core.transaction import Transaction
from penstock.store.fleet import orders, workers


def page(tx: Transaction, *, gone: bool = False, after: str | None = None, limit: int) -> list[WorkerView]:
    """Processes by kind, model and start, after the one named; `gone`: those that have ended, too. Raises NotFound."""
    return workers.page(tx.conn, gone=gone, after=None if after is None else get(tx, after).id, limit=limit)


def get(tx: Transaction, id: str) -> WorkerView:
    """One process; raise NotFound."""
    try:
        found = workers.find(tx.conn, UUID(id))
    except ValueError:
        found = None
    if found is None:
        raise NotFound("worker", id)
    return found


def order(tx: Transaction, id: str, what: Order) -> WorkerView:
    """Tell a worker to do this; how it stands then. An order that stands already is the same one.

    Raises NotFound, and Conflict if it has ended or is of a kind that can't do it.
    """
    worker = get(tx, id)
    if why := _why_not(worker, what):
        raise Conflict(worker.state, what, why)
    if what is Order.RESTART:
        given = orders.restart(tx.conn, worker.id)
    else:
        given = orders.drain(tx.conn, worker.id, what is Order.DRAIN)
    if given:
        audit.record(tx, audit.NOBODY, f"worker.{what}ed", str(worker.id), host=worker.host, model=worker.model)
    return get(tx, id)


def _why_not(worker: WorkerView, what: Order) -> str | None:
    if worker.state == "gone":
        return f"Worker {worker.id} has ended: it takes no orders."
    if worker.state == "draining":
        return f"Worker {worker.id} is about to end: it takes no orders."
    if worker.kind == "keeper":
        return "A keeper takes no orders, since another does the same at any time: end or start its process."
    if what is Order.RESTART and worker.kind != "gpu":
        return "Only a gpu worker has an engine to restart."
    return None
