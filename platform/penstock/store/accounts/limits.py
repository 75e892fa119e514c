"""Limits: what is set for tenants and keys, and how much of what is kept there is."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Final

from sqlalchemy import Connection, text

from penstock.domain.limits.limit import LimitName, Limits

_LOCK = text("select pg_advisory_xact_lock(hashtextextended('limits of ' || :tenant, 0))")
_OF_TENANT = text("select limits from tenants where id = :tenant and closed_at is null")
_OF_KEY = text("select limits from api_keys where tenant = :tenant and id = :key and revoked_at is null")
_SET_TENANT = text("""
    update tenants set limits = (limits || cast(:new as jsonb)) - cast(:gone as text[]) where id = :tenant
    returning limits""")
_SET_KEY = text("""
    update api_keys set limits = (limits || cast(:new as jsonb)) - cast(:gone as text[])
    where tenant = :tenant and id = :key and revoked_at is null
    returning limits""")

_OPEN_BATCHES: Final = """
    select count(*) from batches
    where tenant = :tenant and state in ('validating', 'in_progress', 'paused', 'cancelling', 'finalizing')"""
"""The states as the index `batches_unfinished` has them: of a year's batches only those are looked at."""
_OPEN: Final = "from slices where tenant = :tenant and state in ('queued', 'ready', 'running') and model is not null"
"""A fold's lines are its members'."""
_USED: Final = {
    LimitName.OPEN_BATCHES: text(_OPEN_BATCHES),
    LimitName.QUEUED_LINES: text(f"select coalesce(sum(lines), 0)::bigint {_OPEN}"),
    LimitName.QUEUED_TOKENS: text(f"select coalesce(sum(tokens), 0)::bigint {_OPEN}"),
    # An upload has the place of the file that it will be, and its parts are there until it has ended.
    LimitName.FILES: text("""
        select (select coalesce(sum(files), 0)::bigint from file_sums where tenant = :tenant)
             + (select count(*) from uploads where tenant = :tenant and state = 'pending')"""),
    LimitName.STORED_BYTES: text("""
        select ((select coalesce(sum(bytes), 0) from file_sums where tenant = :tenant)
              + (select coalesce(sum(bytes), 0) from upload_parts where tenant = :tenant))::bigint"""),
    LimitName.ENDPOINTS: text("""
        select count(*) from webhook_endpoints
        where tenant = :tenant and batch is null and disabled_as is distinct from 'deleted'"""),
    LimitName.KEYS: text("""
        select count(*) from api_keys where tenant = :tenant and revoked_at is null
          and (expires_at is null or expires_at > clock_timestamp())"""),
}

_FOLD_FILE_SUMS = text("""
    -- Of many rows of the ledger one with their sum; what others add meanwhile is not seen, and stays.
    with gone as (
        delete from file_sums
        where tenant = :tenant and (select count(*) from file_sums where tenant = :tenant) > :most
        returning files, bytes)
    insert into file_sums (tenant, files, bytes)
    select :tenant, sum(files), sum(bytes) from gone having count(*) > 0""")
MOST_FILE_SUMS: Final = 100
"""Rows of a tenant's ledger that are summed as they are."""

_OPEN_WORK = text(f"""
    select (select limits from tenants where id = :tenant) as given,
           ({_OPEN_BATCHES}) as open_batches,
           coalesce(sum(lines), 0)::bigint as queued_lines, coalesce(sum(tokens), 0)::bigint as queued_tokens
    {_OPEN}""")


def read(found: Mapping[str, int]) -> Limits:
    """Limits of a row; a name that is no more says nothing."""
    return {LimitName(name): int(value) for name, value in found.items() if name in set(LimitName)}


def lock(conn: Connection, tenant: str) -> None:
    """Let one transaction at a time add to what a tenant keeps."""
    conn.execute(_LOCK, {"tenant": tenant})


def fold_file_sums(conn: Connection, tenant: str) -> None:
    """Keep the ledger of a tenant's files short; whoever calls it holds the tenant's lock."""
    conn.execute(_FOLD_FILE_SUMS, {"tenant": tenant, "most": MOST_FILE_SUMS})


def of_tenant(conn: Connection, tenant: str) -> Limits | None:
    """What is set for a tenant; None if there is none, or it is being erased."""
    found = conn.execute(_OF_TENANT, {"tenant": tenant}).scalar()
    return None if found is None else read(found)


def of_key(conn: Connection, tenant: str, key: str) -> Limits | None:
    """What is set for a valid key of the tenant; None if there is none."""
    found = conn.execute(_OF_KEY, {"tenant": tenant, "key": key}).scalar()
    return None if found is None else read(found)


def set_tenant(conn: Connection, tenant: str, new: Limits, gone: Collection[LimitName]) -> Limits | None:
    """Set some limits and take others back; all that are set then, None without such a tenant."""
    values = {"tenant": tenant, "new": json.dumps(new), "gone": list(gone)}
    found = conn.execute(_SET_TENANT, values).scalar()
    return None if found is None else read(found)


def set_key(conn: Connection, tenant: str, key: str, new: Limits, gone: Collection[LimitName]) -> Limits | None:
    """The same for a valid key of the tenant."""
    values = {"tenant": tenant, "key": key, "new": json.dumps(new), "gone": list(gone)}
    found = conn.execute(_SET_KEY, values).scalar()
    return None if found is None else read(found)


def open_work(conn: Connection, tenant: str) -> tuple[Limits, dict[LimitName, int]]:
    """What is set for a tenant, and how many batches, lines and tokens of it are open, in one statement."""
    row = dict(conn.execute(_OPEN_WORK, {"tenant": tenant}).one()._mapping)
    given = row.pop("given")
    return read(given or {}), {LimitName(name): value for name, value in row.items()}


def used(conn: Connection, tenant: str, name: LimitName) -> int:
    """How much a tenant has of what is kept."""
    return int(conn.execute(_USED[name], {"tenant": tenant}).scalar_one())
