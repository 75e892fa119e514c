"""Steering: a batch that is there is paused, resumed, or given another lane, deadline or notes.

In force within one slice: what waits is held, moved or fed in the same transaction, what runs goes on to its end.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.domain.api_errors import BadRequest, Conflict, NotFound, QuotaSpent
from penstock.domain.work.batch import MOVES, Batch, BatchState, PauseReason, parse_window
from penstock.domain.work.lane import Lane
from penstock.service.core import audit
from penstock.service.core.transaction import Transaction
from penstock.service.lifecycle import closing, dispatch
from penstock.settings import Settings
from penstock.settings.dispatch import DispatchSettings
from penstock.store.accounts import budgets
from penstock.store.batches import batches
from penstock.store.work import slices, steering


def pause(tx: Transaction, tenant: str, kind: str, id: str, reason: PauseReason = PauseReason.BY_HAND) -> Batch:
    """Start no more of a batch's slices until it resumes; pausing twice is the same answer. It still expires.

    What its tenant pauses stays so, whatever becomes of a budget.
    Raises NotFound, or Conflict while it is validated, if it is closing or has ended.
    """
    batch = _locked(tx, tenant, kind, id)
    if batch.state is BatchState.PAUSED and batch.finish_as is None:
        if reason is PauseReason.BY_HAND:
            steering.move(tx.conn, batch.id, BatchState.PAUSED, reason)
        return _get(tx, tenant, kind, id)
    if batch.state is BatchState.VALIDATING and batch.finish_as is None:
        message = f"The {kind} is being validated: it can be paused once it is in_progress."
        raise Conflict(batch.state, "paused", message)
    _move(tx, batch, BatchState.PAUSED, reason)
    slices.hold(tx.conn, id)
    audit.record(tx, tenant, f"{kind}.paused", id)
    return _get(tx, tenant, kind, id)


def resume(tx: Transaction, tenant: str, kind: str, id: str, settings: DispatchSettings) -> Batch:
    """Let a paused batch go on, and feed its models at once; on one that is in progress, the same answer.

    Raises NotFound, QuotaSpent, or Conflict while it is validated, if it is closing or has ended.
    """
    batch = _locked(tx, tenant, kind, id)
    if batch.state is BatchState.IN_PROGRESS and batch.finish_as is None:
        return batch
    if batch.state is BatchState.VALIDATING and batch.finish_as is None:
        raise Conflict(batch.state, "resumed", f"The {kind} is being validated: it is not paused.")
    budget = budgets.get(tx.conn, tenant)
    if budget is not None and budget.state == "spent":
        raise QuotaSpent
    _move(tx, batch, BatchState.IN_PROGRESS)
    audit.record(tx, tenant, f"{kind}.resumed", id)
    slices.unhold(tx.conn, id)
    closing.move_on(tx, id)  # its last slice may have ended meanwhile
    _feed(tx, id, settings)
    return _get(tx, tenant, kind, id)


def change(
    tx: Transaction,
    tenant: str,
    kind: str,
    id: str,
    settings: Settings,
    *,
    lane: Lane | None = None,
    completion_window: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Batch:
    """Give an open batch another lane, window (from its creation) or metadata (all of it); None leaves each as it is.

    Raises NotFound, Conflict if it is closing or has ended, or BadRequest for a window that has passed already.
    """
    window = None if completion_window is None else parse_window(completion_window, settings.max_window_seconds)
    batch = _locked(tx, tenant, kind, id)
    if batch.finish_as is not None or batch.ended:
        raise Conflict(batch.state, "changed", f"The {kind} is {_standing(batch)}: it can't be changed any more.")
    if window is not None and batch.created_at + window <= batches.now(tx.conn):
        message = f"{completion_window!r} counts from the creation of the {kind}, and has passed already."
        raise BadRequest(message, param="completion_window")
    deadline = None if window is None else batch.created_at + window
    steering.change(tx.conn, id, lane=lane, completion_window=completion_window, deadline=deadline, metadata=metadata)
    given = {"lane": lane, "completion_window": completion_window}
    told = {name: value for name, value in given.items() if value is not None}
    audit.record(tx, tenant, f"{kind}.updated", id, **told, metadata=metadata is not None)
    if lane is not None or deadline is not None:
        slices.move(tx.conn, id, lane, deadline)
        _feed(tx, id, settings)
    return _get(tx, tenant, kind, id)


def _locked(tx: Transaction, tenant: str, kind: str, id: str) -> Batch:
    """The batch as it is under its lock; nobody else's is ever locked."""
    if batches.state_of(tx.conn, tenant, kind, id) is None:
        raise NotFound(kind, id, param=f"{kind}_id")
    batches.lock(tx.conn, id)
    return _get(tx, tenant, kind, id)


def _get(tx: Transaction, tenant: str, kind: str, id: str) -> Batch:
    batch = batches.get(tx.conn, tenant, id)
    if batch is None:
        raise NotFound(kind, id, param=f"{kind}_id")
    return batch


def _move(tx: Transaction, batch: Batch, wanted: BatchState, reason: PauseReason | None = None) -> None:
    if batch.finish_as is not None or wanted not in MOVES[batch.state]:
        raise Conflict(_standing(batch), wanted)
    steering.move(tx.conn, batch.id, wanted, reason)


def _standing(batch: Batch) -> str:
    """Its state, or what becomes of it where the state does not say so yet."""
    if batch.finish_as and batch.state in (BatchState.VALIDATING, BatchState.IN_PROGRESS, BatchState.PAUSED):
        return f"ending as {batch.finish_as}"
    return batch.state


def _feed(tx: Transaction, id: str, settings: DispatchSettings) -> None:
    for model in steering.open_models(tx.conn, id):
        dispatch.feed(tx, model, settings)
