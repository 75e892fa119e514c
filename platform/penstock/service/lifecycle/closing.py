"""Closing: how a batch comes to its end, whoever begins it.

Every function here expects that the caller's transaction has locked the batch's row.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.domain.work import hint
from penstock.domain.work.batch import Batch, BatchEnd, BatchState
from penstock.service.core.ids import fresh
from penstock.service.core.transaction import Transaction
from penstock.service.webhooks import webhook_queue
from penstock.store.batches import batches
from penstock.store.work import folds, slices


def close(tx: Transaction, batch: str, finish_as: BatchState) -> bool:
    """Begin to close: nothing of the batch is dispatched any more. False if somebody closed it before."""
    if not batches.close(tx.conn, batch, finish_as):
        return False
    slices.drop(tx.conn, batch)
    return True


def move_on(tx: Transaction, batch: str) -> bool:
    """Move to finalizing if no slice is open; an inline job and a batch without a plan end at once. Say if it moved."""
    return bool(move_on_all(tx, [batch]))


def move_on_all(tx: Transaction, ids: Sequence[str]) -> list[str]:
    """Do so for several batches; those that moved."""
    due = [now for now in batches.find_all(tx.conn, ids) if _may_move_on(now)]
    for now in due:
        if now.finish_as is not None:
            slices.drop(tx.conn, now.id)  # one that was given back by a holder that had not seen the batch close
            if not now.inline:  # a small job asks one model
                folds.ended_in(tx.conn, now.id)
                folds.drop(tx.conn, now.id, failed=now.finish_as is BatchState.FAILED)
    if not due:
        return []
    open_ones = slices.with_open(tx.conn, [now.id for now in due])
    for batch in folds.due_in(tx.conn, [now.id for now in due if now.finish_as and now.id in open_ones]):
        tx.hint(hint.fold(batch))
    due = [now for now in due if now.id not in open_ones]
    batches.finalize(tx.conn, [now.id for now in due])
    ended: dict[BatchState, list[str]] = {}
    for now in due:
        if now.inline or now.plan_key is None:
            ended.setdefault(now.finish_as or BatchState.COMPLETED, []).append(now.id)
        else:
            tx.hint(hint.assemble(now.id))
    for state, those in ended.items():
        end(tx, those, BatchEnd(state))
    return [now.id for now in due]


def _may_move_on(now: Batch) -> bool:
    if now.ended or now.state is BatchState.FINALIZING:
        return False
    return now.finish_as is not None or now.state in (BatchState.IN_PROGRESS, BatchState.PAUSED)


def end(tx: Transaction, ids: Sequence[str], how: BatchEnd) -> None:
    """Make the last move of each, with its event, and owe that to whoever wants to hear of it."""
    events = {id: fresh("evt_") for id in ids}
    batches.end(tx.conn, events, how)
    webhook_queue.owe(tx, list(events.values()))
