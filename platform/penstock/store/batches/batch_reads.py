"""Batch reads: a batch or job as its caller sees it, and which of those that callers wait for have ended."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from penstock.domain.work.batch import TERMINAL, BatchKey, BatchRead
from penstock.store.batches import batches

_LOOK = text(
    batches.COLUMNS
    + """,
           array(select c.id from batches c where c.tenant = b.tenant and c.parent = b.id
                 order by c.created_at, c.id limit :children) as children,
           exists (select from webhook_endpoints w where w.tenant = b.tenant and w.batch = b.id) as has_webhook"""
    + batches.FROM
    + "where b.tenant = :tenant and b.id = :id"
)

_ENDED_OR_GONE = text("""
    -- By key, each in its tenant: however many are asked about, it is one statement.
    select k.tenant, k.kind, k.id
    from unnest(cast(:tenants as text[]), cast(:kinds as text[]), cast(:ids as text[])) as k(tenant, kind, id)
    left join batches b on b.id = k.id and b.tenant = k.tenant and b.kind = k.kind
    where b.id is null or b.state = any(cast(:terminal as text[]))""")


def look(conn: Connection, tenant: str, id: str, *, children: int) -> BatchRead | None:
    """A tenant's batch as its caller looks at it, in one statement; so many of its children at most."""
    row = conn.execute(_LOOK, {"tenant": tenant, "id": id, "children": children}).first()
    return BatchRead(batches.of_row(row), tuple(row.children), row.has_webhook) if row else None


def ended_or_gone(conn: Connection, keys: Sequence[BatchKey]) -> list[BatchKey]:
    """Those of these that have ended, or that their tenant does not have."""
    tenants, kinds, ids = zip(*keys, strict=True)
    values = {"tenants": list(tenants), "kinds": list(kinds), "ids": list(ids), "terminal": sorted(TERMINAL)}
    return [BatchKey(*row) for row in conn.execute(_ENDED_OR_GONE, values)]
