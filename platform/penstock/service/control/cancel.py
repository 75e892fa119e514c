"""Cancel and expire: what is answered is kept, the rest is not asked."""

from __future__ import annotations

from penstock.domain.api_errors import Conflict, NotFound
from penstock.domain.work.batch import Batch, BatchState
from penstock.service.core import audit
from penstock.service.core.transaction import Transaction
from penstock.service.lifecycle import closing
from penstock.store.batches import batches
from penstock.store.work import pending_batches


def cancel(tx: Transaction, tenant: str, kind: str, id: str) -> Batch:
    """Cancel a batch or job; the batch as it is while cancelling. Cancelling twice is the same answer.

    Raises NotFound, or Conflict if it is closing otherwise or has ended.
    """
    batch = batches.get(tx.conn, tenant, id)
    if batch is None or batch.kind != kind:
        raise NotFound(kind, id)
    batches.lock(tx.conn, id)
    if closing.close(tx, id, BatchState.CANCELLED):
        cancelling = _get(tx, tenant, id)
        closing.move_on(tx, id)
        audit.record(tx, tenant, f"{kind}.cancelled", id)
        return cancelling
    batch = _get(tx, tenant, id)
    if batch.finish_as is not BatchState.CANCELLED:
        raise Conflict(batch.state, "cancelled")
    return batch


def _get(tx: Transaction, tenant: str, id: str) -> Batch:
    batch = batches.get(tx.conn, tenant, id)
    assert batch is not None, "a locked batch is there"
    return batch


def expire(tx: Transaction, id: str) -> bool:
    """Close a batch whose deadline has passed; False if it has not, if somebody is at it, or it is closing already."""
    if not batches.try_lock(tx.conn, id) or not pending_batches.past_deadline(tx.conn, id):
        return False
    closed = closing.close(tx, id, BatchState.EXPIRED)
    closing.move_on(tx, id)
    return closed
