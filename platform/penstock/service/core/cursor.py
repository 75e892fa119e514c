"""A cursor of a list: what a client names as the last object that it saw."""

from __future__ import annotations

from penstock.domain.api_errors import NotFound
from penstock.service.core.transaction import Transaction
from penstock.store import cursors
from penstock.store.cursors import Listed, ListPlace


def place(tx: Transaction, tenant: str, listed: Listed, after: str | None) -> ListPlace | None:
    """Where a page begins, None at the top; raise NotFound for what the tenant neither has nor lately deleted."""
    if after is None:
        return None
    found = cursors.find(tx.conn, tenant, listed, after)
    if found is None:
        raise NotFound(listed, after, param="after")
    return found
