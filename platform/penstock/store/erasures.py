"""Erasures: which tenants are being erased, how far that is, and the statements that remove what is a tenant's.

Each statement removes a bounded number of rows and may be repeated; together, repeated until nothing is left, they
empty every table of the tenant. Which tables that are a test asks the catalogue (tests/service/test_erasure.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from penstock.domain.accounts.account import accounts
from penstock.domain.accounts.audit import ERASED, Actor
from penstock.domain.accounts.erasure import Erasure

_CLOSE = text("""
    -- From here on none of its keys is valid. Who asks again while it goes on is told of the same erasure.
    with closed as (
        update tenants set closed_at = coalesce(closed_at, clock_timestamp()) where id = :tenant returning id)
    insert into erasures (id, tenant, actor, request)
    select :id, id, :actor, :request from closed
    on conflict (tenant) do nothing""")
_COLUMNS = "id, tenant, actor, request, asked_at, ended_at, gone"
_OF_TENANT = text(f"select {_COLUMNS} from erasures where tenant = :tenant")
_GET = text(f"select {_COLUMNS} from erasures where id = :id")
_LOCK = text(f"select {_COLUMNS} from erasures where id = :id and ended_at is null for update skip locked")
_PENDING = text("select id from erasures where ended_at is null order by asked_at, id")
_NOTE = text("update erasures set gone = cast(:gone as jsonb) where id = :id")
_DELETE_OLD = text("delete from erasures where ended_at < clock_timestamp() - :after")

_COUNT = text("""
    select (select count(*) from batches where tenant = :tenant and kind = 'batch') as batches,
           (select count(*) from batches where tenant = :tenant and kind = 'job') as jobs,
           (select count(*) from files where tenant = :tenant) as files,
           (select coalesce(sum(bytes), 0)::bigint from files where tenant = :tenant) as bytes,
           (select count(*) from webhook_endpoints where tenant = :tenant) as webhook_endpoints,
           (select count(*) from api_keys where tenant = :tenant) as api_keys""")

_OPEN = text("""
    select id from batches
    where tenant = :tenant and finish_as is null and state in ('validating', 'in_progress', 'paused')
    order by id limit :limit for no key update skip locked""")

_REMOVABLE = text("""
    -- Those that nobody works on, the youngest first: a retry goes before what it repeats. Whoever still holds a lease
    -- hears that the batch is closing; after `patience` it has had its time, and what it writes is refused.
    select b.id from batches b join tenants t on t.id = b.tenant
    where b.tenant = :tenant
      and not exists (select from batches c where c.parent = b.id)
      and not exists (select from batches c where c.root = b.id and c.id <> b.id)
      and (t.closed_at < clock_timestamp() - :patience
           or not exists (select from leases l where l.batch = b.id and l.closed_at is null))
    order by b.created_at desc, b.id desc limit :limit for update of b skip locked""")
_LOCK_SLICES = text("""
    -- Whoever records under a lease locks its slice first and its batch after that: nobody is waited for here.
    with running as (select id from slices where batch = any(cast(:batches as text[])) and state = 'running'),
    locked as (select id from slices where id = any(array(select id from running)) for update skip locked)
    select (select count(*) from running) = (select count(*) from locked)""")
_HAS_BATCHES = text("select exists (select from batches where tenant = :tenant)")

_MOVES_OF = text("""
    delete from trail where id = any(array(
        select id from trail where batch = any(cast(:batches as text[])) limit :limit))""")
_MOVES = text("""
    -- Moves of batches that were deleted before: no index has them, so the whole trail is read, once, in bounded steps.
    with span as (select id, tenant from trail where id > :after order by id limit :limit),
    gone as (delete from trail t using span where t.id = span.id and span.tenant = :tenant returning t.id)
    select (select max(id) from span) as last, (select count(*) from span) as read,
           (select count(*) from gone) as gone""")
_TRAIL_ID = text("select trail_id from erasures where id = :id")
_MOVE_ON = text("update erasures set trail_id = :trail_id where id = :id")


def _delete(table: str, key: str, where: str = "tenant = :tenant") -> str:
    return f"""
        with gone as (
            delete from {table} where {key} = any(array(select {key} from {table} where {where} limit :limit))
            returning 1)
        select count(*) as rows, 0 as bytes from gone"""


def _delete_with_blobs(table: str) -> str:
    """The rows go and their blobs are due for deletion in one step."""
    return f"""
        with gone as (
            delete from {table} where id = any(array(
                select id from {table} where tenant = :tenant limit :limit for update skip locked))
            returning blob_key, bytes),
        doomed as (
            insert into intents (blob_key, doomed_at) select blob_key, clock_timestamp() from gone
            on conflict (blob_key) do nothing)
        select count(*) as rows, coalesce(sum(bytes), 0)::bigint as bytes from gone"""


_USAGE: Final = """
    with gone as (
        delete from {0} where ctid = any(array(select ctid from {0} where tenant = :tenant limit :limit)) returning 1)
    select count(*) as rows, 0 as bytes from gone"""

_PARTS: Final = {
    kind: text(statement)
    for kind, statement in {
        "deliveries": _delete("deliveries", "id"),
        "events": _delete("events", "id", "tenant = :tenant and batch is null"),
        "webhook_endpoints": _delete("webhook_endpoints", "id"),
        "eval_comparisons": _delete("eval_comparisons", "id"),
        "eval_runs": _delete("eval_runs", "id"),
        "evals": _delete("evals", "id"),
        "files": _delete_with_blobs("files"),
        "upload_parts": _delete_with_blobs("upload_parts"),
        "uploads": _delete("uploads", "id"),
        "unheard_creates": _delete("unheard_creates", "made"),
        "usage_hours": _USAGE.format("usage_lines"),
        "usage_hours_of_calls": _USAGE.format("usage_calls"),
        "fair_turns": """
            with gone as (delete from fair_turns where tenant = any(cast(:accounts as text[])) returning 1)
            select count(*) as rows, 0 as bytes from gone""",
        "audit": _delete("audit", "id"),
        "acts_of_its_keys": """
            -- What its operators' keys did to other tenants stays in the audit, without them.
            with gone as (
                update audit set actor = :erased, request = null where id = any(array(
                    select id from audit
                    where actor = any(array(select id from api_keys where tenant = :tenant))
                      and exists (select from api_keys where tenant = :tenant) -- else nothing is read
                    limit :limit))
                returning 1)
            select count(*) as rows, 0 as bytes from gone""",
        "erasures_by_its_keys": """
            with gone as (
                update erasures set actor = :erased, request = null
                where actor = any(array(select id from api_keys where tenant = :tenant)) returning 1)
            select count(*) as rows, 0 as bytes from gone""",
        "ensembles_by_its_keys": """
            with gone as (
                update ensembles set actor = :erased
                where actor = any(array(select id from api_keys where tenant = :tenant)) returning 1)
            select count(*) as rows, 0 as bytes from gone""",
        "api_keys": _delete("api_keys", "id"),
        # Last: each deletion of what is listed leaves its place.
        "places_in_lists": _delete("gone", "id"),
    }.items()
}
"""What there is beside batches, in the order of what refers to what."""

_DOOM = text("""
    -- What was being written is deleted later: whoever writes it has heard of it by then, and puts nothing any more.
    update intents set doomed_at = clock_timestamp() + :late
    where starts_with(blob_key, :tenant || '/')
      and (doomed_at is null or doomed_at > clock_timestamp() + :late)""")
_HAS_BLOBS = text("select exists (select from intents where starts_with(blob_key, :tenant || '/'))")
_DUE = text("""
    select exists (
        select from intents where starts_with(blob_key, :tenant || '/') and doomed_at <= clock_timestamp())""")

_ALONE = text("""
    -- Whoever refers to the tenant just now is waited for, and whoever wants to waits: then a look says the truth.
    select closed_at < clock_timestamp() - :grace from tenants where id = :tenant for update""")
_END = text("update erasures set tenant = null, ended_at = clock_timestamp() where id = :id")
_GONE = text("delete from tenants where id = :tenant")


def close(conn: Connection, tenant: str, *, id: str, actor: Actor) -> Erasure | None:
    """Close a tenant and begin its erasure; the one that goes on, if it does; None if there is no such tenant."""
    conn.execute(_CLOSE, {"tenant": tenant, "id": id, "actor": actor.id, "request": actor.request})
    return _one(conn.execute(_OF_TENANT, {"tenant": tenant}).first())


def get(conn: Connection, id: str) -> Erasure | None:
    """One erasure. For the operator, never for a caller."""
    return _one(conn.execute(_GET, {"id": id}).first())


def lock(conn: Connection, id: str) -> Erasure | None:
    """The same for the one who does it; None if it has ended, or somebody else is at it."""
    return _one(conn.execute(_LOCK, {"id": id}).first())


def pending(conn: Connection) -> list[str]:
    """Erasures that have not ended, by time. For the platform's own work."""
    return [row.id for row in conn.execute(_PENDING)]


def note(conn: Connection, id: str, gone: Mapping[str, int]) -> None:
    """Note what is removed by now."""
    conn.execute(_NOTE, {"id": id, "gone": json.dumps(gone)})


def delete_old(conn: Connection, *, after: timedelta) -> int:
    """Delete the rows of erasures that ended longer than `after` ago."""
    return conn.execute(_DELETE_OLD, {"after": after}).rowcount


def count(conn: Connection, tenant: str) -> dict[str, int]:
    """How much there is of a tenant."""
    return dict(conn.execute(_COUNT, {"tenant": tenant}).one()._mapping)


def open_batches(conn: Connection, tenant: str, *, limit: int) -> list[str]:
    """Lock batches of a tenant that nobody has closed."""
    return [row.id for row in conn.execute(_OPEN, {"tenant": tenant, "limit": limit})]


def removable(conn: Connection, tenant: str, *, patience: timedelta, limit: int) -> list[str]:
    """Lock batches of a closed tenant that may be removed now."""
    values = {"tenant": tenant, "patience": patience, "limit": limit}
    return [row.id for row in conn.execute(_REMOVABLE, values)]


def lock_slices(conn: Connection, batches: list[str]) -> bool:
    """Keep the last holders of these batches from recording more; False if one of them does at this moment."""
    return bool(conn.execute(_LOCK_SLICES, {"batches": batches}).scalar_one())


def has_batches(conn: Connection, tenant: str) -> bool:
    """Say whether any batch of a tenant is left."""
    return bool(conn.execute(_HAS_BATCHES, {"tenant": tenant}).scalar_one())


def remove_moves_of(conn: Connection, tenant: str, batches: list[str], *, limit: int) -> int:
    """Remove moves of a closed tenant's batches from the trail."""
    return conn.execute(_MOVES_OF, {"batches": batches, "limit": limit}).rowcount


def remove_moves(conn: Connection, tenant: str, *, id: str, limit: int) -> int | None:
    """Remove moves of a closed tenant's former batches from the next part of the trail; None if it ends there."""
    after = conn.execute(_TRAIL_ID, {"id": id}).scalar_one()
    found = conn.execute(_MOVES, {"after": after, "tenant": tenant, "limit": limit}).one()
    if found.read:
        conn.execute(_MOVE_ON, {"id": id, "trail_id": found.last})
    return int(found.gone) if found.gone or found.read == limit else None


def remove_part(conn: Connection, tenant: str, *, limit: int) -> dict[str, int] | None:
    """Remove some of what a tenant has beside batches, and say of what; None if nothing is left."""
    values = {"tenant": tenant, "accounts": list(accounts(tenant)), "erased": ERASED.id, "limit": limit}
    for kind, statement in _PARTS.items():
        found = conn.execute(statement, values).one()
        if found.rows:
            return {kind: int(found.rows), "bytes": int(found.bytes)}
    return None


def doom_blobs(conn: Connection, tenant: str, *, late: timedelta) -> bool:
    """Doom what is being written for a tenant, to be deleted `late` from now; say whether any of its blobs is left."""
    conn.execute(_DOOM, {"tenant": tenant, "late": late})
    return bool(conn.execute(_HAS_BLOBS, {"tenant": tenant}).scalar_one())


def has_due_blobs(conn: Connection, tenant: str) -> bool:
    """Say whether a blob of a tenant is to be deleted now."""
    return bool(conn.execute(_DUE, {"tenant": tenant}).scalar_one())


def alone(conn: Connection, tenant: str, *, grace: timedelta) -> bool:
    """Lock a tenant against whoever would refer to it; False if it was closed less than `grace` ago."""
    return bool(conn.execute(_ALONE, {"tenant": tenant, "grace": grace}).scalar_one())


def end(conn: Connection, tenant: str, *, id: str) -> None:
    """Remove the tenant itself, of which nothing is left, and its name from the erasure."""
    conn.execute(_END, {"id": id})
    conn.execute(_GONE, {"tenant": tenant})


def _one(row: Row[Any] | None) -> Erasure | None:
    if row is None:
        return None
    return Erasure(row.id, row.tenant, Actor(row.actor, row.request), row.asked_at, row.ended_at, row.gone)
