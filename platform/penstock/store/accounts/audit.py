"""Audit: its rows, which are only ever added, and go when they are old."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from penstock.domain.accounts.audit import Actor, AuditRow

_INSERT = text("""
    insert into audit (tenant, actor, request, action, target, details)
    values (:tenant, :actor, :request, :action, :target, cast(:details as jsonb))""")
_PAGE = text("""
    select id, at, tenant, actor, request, action, target, details from audit
    where (cast(:tenant as text) is null or tenant = :tenant)
      and (cast(:action as text) is null or action = :action)
      and (cast(:since as timestamptz) is null or at >= :since)
      and (cast(:after as bigint) is null or id < :after)
    order by id desc limit :limit""")
_DELETE_OLD = text("""
    -- Only the oldest rows are looked at, by id: they are as good as ordered by time.
    delete from audit where id = any(array(select id from audit order by id limit :limit))
        and at < clock_timestamp() - :after""")


def insert(
    conn: Connection, tenant: str, *, actor: Actor, action: str, target: str, details: Mapping[str, Any]
) -> None:
    """Add a row about a tenant's things."""
    values = {"tenant": tenant, "actor": actor.id, "request": actor.request, "action": action, "target": target}
    conn.execute(_INSERT, values | {"details": json.dumps(details)})


def page(
    conn: Connection, tenant: str | None, *, action: str | None, since: datetime | None, after: int | None, limit: int
) -> list[AuditRow]:
    """Rows about a tenant's things, newest first, before the one named; about all tenants' for the operator only."""
    values = {"tenant": tenant, "action": action, "since": since, "after": after, "limit": limit}
    return [
        AuditRow(row.id, row.at, row.tenant, Actor(row.actor, row.request), row.action, row.target, row.details)
        for row in conn.execute(_PAGE, values)
    ]


def delete_old(conn: Connection, *, after: timedelta, limit: int) -> int:
    """Delete the oldest rows, if they are older than `after`."""
    return conn.execute(_DELETE_OLD, {"after": after, "limit": limit}).rowcount
