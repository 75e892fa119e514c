"""Closing: how a batch comes to its end, whoever begins it.

Every function here expects that the caller's transaction has locked the batch's row.
"""

from __future__ import annotations

from penstock.domain import hint
from penstock.domain.batch import BatchState
from penstock.service.ids import fresh
from penstock.service.transaction import Transaction
from penstock.store import batches, slices


def close(tx: Transaction, batch: str, finish_as: BatchState) -> bool:
    """Begin to close: nothing of the batch is dispatched any more. False if somebody closed it before."""
    if not batches.close(tx.conn, batch, finish_as):
        return False
    slices.drop(tx.conn, batch)
    return True


def move_on(tx: Transaction, batch: str) -> bool:
    """Move to finalizing if no slice is open; an inline job and a batch without a plan end at once. Say if it moved."""
    now = batches.find(tx.conn, batch)
    if now is None or now.ended or now.state is BatchState.FINALIZING:
        return False
    if now.finish_as is None and now.state not in (BatchState.IN_PROGRESS, BatchState.PAUSED):
        return False
    if now.finish_as is not None:
        slices.drop(tx.conn, batch)  # one that was given back by a holder that had not seen the batch close
    if slices.any_open(tx.conn, batch):
        return False
    batches.finalize(tx.conn, batch)
    finish_as = now.finish_as or BatchState.COMPLETED
    if now.inline or now.plan_key is None:
        end(tx, batch, finish_as)
    else:
        tx.hint(hint.assemble(batch))
    return True


def end(
    tx: Transaction,
    batch: str,
    state: BatchState,
    *,
    output_file: str | None = None,
    error_file: str | None = None,
    merged_output_file: str | None = None,
    merged_error_file: str | None = None,
) -> None:
    """Make the last move, with its event."""
    batches.end(
        tx.conn,
        batch,
        state,
        event=fresh("evt_"),
        output_file=output_file,
        error_file=error_file,
        merged_output_file=merged_output_file,
        merged_error_file=merged_error_file,
    )
