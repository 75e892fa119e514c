"""Deletion: an ended batch goes with all that is its own: rows, pieces, results, events, and what is owed of those.

What its lines used stays counted: the statement that deletes segments adds them up first. Its input file is its
tenant's own, but for a job's, which was made of the job's requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, text

from penstock.store import sweep

_SEGMENTS: Final = 1_000

_CHILD = text("select id from batches where tenant = :tenant and parent = :id order by created_at, id limit 1")

_FILES = text("""
    -- Rows of files go and their blobs are due for deletion in one step.
    with ended as (
        select tenant, kind, inline, input_file, output_file, error_file, merged_output_file, merged_error_file,
               trace_file
        from batches
        where id = any(cast(:batches as text[]))),
    gone as (
        delete from files f using ended e
        where f.tenant = e.tenant and (
            f.id in (e.output_file, e.error_file, e.merged_output_file, e.merged_error_file, e.trace_file)
            or (e.kind = 'job' and not e.inline and f.id = e.input_file))
        returning f.blob_key, f.bytes),
    doomed as (
        insert into intents (blob_key, doomed_at)
        select blob_key, clock_timestamp() from gone
        on conflict (blob_key) do nothing)
    select count(*) as files, coalesce(sum(bytes), 0)::bigint as bytes from gone""")

_SLICES = text("""
    delete from slices where id = any(array(
        select id from slices where batch = any(cast(:batches as text[])) limit :limit))""")

_OWN: Final = tuple(
    text(statement)
    for statement in (
        "delete from leases where batch = any(cast(:batches as text[]))",
        "delete from deliveries where event in (select id from events where batch = any(cast(:batches as text[])))",
        "delete from events where batch = any(cast(:batches as text[]))",
        "delete from deliveries where endpoint in ("
        "select id from webhook_endpoints where batch = any(cast(:batches as text[])))",
        "delete from webhook_endpoints where batch = any(cast(:batches as text[]))",
        "delete from batches where id = any(cast(:batches as text[]))",
    )
)
"""In the order of what refers to what."""

_OLD = text("""
    -- From tenant to tenant, each by its own time, and a step in the index for each: a comparison with null is no row.
    select old.id from tenants t cross join lateral (
        select b.id from batches b
        where b.tenant = t.id and b.state in ('completed', 'cancelled', 'expired', 'failed')
          and greatest(b.completed_at, b.cancelled_at, b.expired_at, b.failed_at)
              < clock_timestamp() - coalesce(t.batch_retention_days * interval '1 day', cast(:after as interval))
          and not exists (select from batches c where c.tenant = b.tenant and c.parent = b.id)
        order by greatest(b.completed_at, b.cancelled_at, b.expired_at, b.failed_at)
        limit :limit for update of b skip locked) old
    limit :limit""")


def child(conn: Connection, tenant: str, id: str) -> str | None:
    """The first retry of a tenant's batch, if it has any."""
    found: str | None = conn.execute(_CHILD, {"tenant": tenant, "id": id}).scalar()
    return found


def delete(conn: Connection, batches: Sequence[str]) -> None:
    """Delete batches that have ended and that the caller has locked."""
    while "batches" not in delete_some(conn, batches, limit=_SEGMENTS):
        pass


def delete_some(conn: Connection, batches: Sequence[str], *, limit: int) -> dict[str, int]:
    """Delete up to so many segments and slices of such batches, and once there are no more, the batches themselves.

    What went, by kind: `batches` only with the last of them, with their `files` and those files' `bytes`.
    """
    gone = {"segments": sweep.delete_segments(conn, batches, limit=limit, inline=True)}
    if gone["segments"] == limit:
        return gone
    sweep.delete_leftovers(conn, batches)
    gone["slices"] = conn.execute(_SLICES, {"batches": list(batches), "limit": limit}).rowcount
    if gone["slices"] == limit:
        return gone
    found = conn.execute(_FILES, {"batches": list(batches)}).one()
    for statement in _OWN:
        conn.execute(statement, {"batches": list(batches)})
    return gone | {"files": int(found.files), "bytes": int(found.bytes), "batches": len(batches)}


def old(conn: Connection, *, after: timedelta | None, limit: int) -> list[str]:
    """Lock batches that ended longer ago than their tenant's time and that no retry is there of.

    A tenant without a time of its own has `after`; None: until they are deleted.
    """
    return [row.id for row in conn.execute(_OLD, {"after": after, "limit": limit})]
