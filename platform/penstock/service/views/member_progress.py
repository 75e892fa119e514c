"""Member progress: what the members of its ensembles have done of a batch, as its caller sees it."""

from __future__ import annotations

from penstock.domain.api_errors import NotFound
from penstock.domain.ensembles.member_progress import MemberProgress
from penstock.service.core.transaction import Transaction
from penstock.store.batches import batches
from penstock.store.work import member_progress


def of_batch(tx: Transaction, tenant: str, kind: str, id: str) -> list[MemberProgress]:
    """Each member that lines of the batch or job go to; none where it asks plain models. Raises NotFound."""
    found = member_progress.of_batch(tx.conn, tenant, kind, id)
    if not found:
        batch = batches.get(tx.conn, tenant, id)
        if batch is None or batch.kind != kind:
            raise NotFound(kind, id, param=f"{kind}_id")
    return found
