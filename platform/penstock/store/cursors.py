"""Cursors: where a list goes on after an object of it, also if that one was deleted since.

Clients name the last id that they saw, and some delete what they page through. So the database keeps the place of
what is deleted for a day (`gone`; a trigger writes it, whoever deletes).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, text


class Listed(StrEnum):
    """What lists there are, by the names that people read."""

    FILES = "file"
    BATCHES = "batch"
    JOBS = "job"
    ENDPOINTS = "webhook endpoint"
    DELIVERIES = "webhook delivery"
    EVALS = "eval"
    EVAL_RUNS = "eval run"


@dataclass(frozen=True)
class ListPlace:
    """A place in a list that is ordered by time of creation, then by id."""

    created_at: datetime
    id: str


_ROWS: Final = {
    Listed.FILES: ("files where true", "file-"),
    Listed.BATCHES: ("batches where kind = 'batch'", "batch_"),
    Listed.JOBS: ("batches where kind = 'job'", "job_"),
    Listed.ENDPOINTS: ("webhook_endpoints where batch is null", "we_"),
    Listed.DELIVERIES: ("deliveries where true", "dlv_"),
    Listed.EVALS: ("evals where true", "eval_"),
    Listed.EVAL_RUNS: ("eval_runs where true", "evalrun_"),
}
_FIND: Final = {
    listed: text(f"""
    select created_at, id from {rows} and tenant = :tenant and id = :id
    union all
    select created_at, id from gone where tenant = :tenant and id = :id and starts_with(id, '{prefix}')
    limit 1""")
    for listed, (rows, prefix) in _ROWS.items()
}
_DELETE_OLD = text("""
    delete from gone where id = any(array(
        select id from gone where gone_at < clock_timestamp() - interval '1 day'
        order by gone_at limit :limit for update skip locked))""")


def find(conn: Connection, tenant: str, listed: Listed, id: str) -> ListPlace | None:
    """Where a tenant's object stands, or stood within the last day; None if it has, and had, none of this id."""
    row = conn.execute(_FIND[listed], {"tenant": tenant, "id": id}).first()
    return ListPlace(row.created_at, row.id) if row else None


def values(after: ListPlace | None) -> dict[str, Any]:
    """`:after_at` and `:after`, both null for the first page."""
    return {"after_at": after.created_at if after else None, "after": after.id if after else None}


def delete_old(conn: Connection, *, limit: int) -> int:
    """Forget places of what was deleted more than a day ago."""
    return conn.execute(_DELETE_OLD, {"limit": limit}).rowcount
