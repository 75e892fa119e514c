"""Delete: an ended batch or job goes with all that is its own; what it used stays counted."""

from __future__ import annotations

from penstock.domain.api_errors import Conflict, NotFound
from penstock.service.core import audit
from penstock.service.core.transaction import Transaction
from penstock.store import deletion
from penstock.store.batches import batches
from penstock.store.work import counts


def delete(tx: Transaction, tenant: str, kind: str, id: str) -> None:
    """Delete a tenant's batch or job that has ended.

    Raises NotFound, or Conflict if it has not ended, or a retry of it is there, which needs its lines.
    """
    batch = batches.get(tx.conn, tenant, id)
    if batch is None or batch.kind != kind:
        raise NotFound(kind, id)
    if not batches.lock(tx.conn, id):
        raise NotFound(kind, id)  # somebody else deleted it just now
    batch = batches.get(tx.conn, tenant, id)
    if batch is None or not batch.ended:
        state = "gone" if batch is None else str(batch.state)
        raise Conflict(state, "deleted", f"It is {state}: cancel it, and delete it once it has ended.")
    if child := deletion.child(tx.conn, tenant, id):
        raise Conflict(batch.state, "deleted", f"{child} repeats lines of it: delete that one first.")
    deletion.delete(tx.conn, [id])
    counts.add(tx.conn, "batch_deleted", 1)
    audit.record(tx, tenant, f"{kind}.deleted", id, state=batch.state)
