"""Audit: an act leaves its row in the transaction that does it, so that there is never one without the other."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

from penstock.domain.accounts.audit import AuditRow
from penstock.domain.api_errors import BadRequest
from penstock.service.core.transaction import Transaction
from penstock.store.accounts import audit

PREFIX: Final = "audit_"
NOBODY: Final = ""
"""The tenant of what is no tenant's: models and prices."""
_ID: Final = re.compile(r"audit_([1-9][0-9]{0,17})", re.ASCII)


def record(tx: Transaction, tenant: str, action: str, target: str, **details: Any) -> None:
    """Note that the transaction's actor did this; details are few, and hold no secret and no content."""
    audit.insert(tx.conn, tenant, actor=tx.actor, action=action, target=target, details=details)


def page(
    tx: Transaction,
    *,
    tenant: str | None = None,
    action: str | None = None,
    since: datetime | None = None,
    after: str | None = None,
    limit: int,
) -> list[AuditRow]:
    """What was done, newest first, after the row named; for the operator. Raises BadRequest for an odd `after`."""
    found = _ID.fullmatch(after) if after is not None else None
    if after is not None and found is None:
        raise BadRequest("'after' is the id of a row.", param="after")
    before = int(found[1]) if found else None
    return audit.page(tx.conn, tenant, action=action, since=since, after=before, limit=limit)
