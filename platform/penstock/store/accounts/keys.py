"""Keys: API keys as hashes, and the tenants that they speak for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, text

from penstock.domain.accounts.access import Access, Budget, Role, Scope
from penstock.domain.accounts.api_key import ApiKey
from penstock.store.accounts import limits

_TENANT = text("insert into tenants (id, name) values (:tenant, :name) on conflict (id) do nothing returning id")
_INSERT = text("""
    insert into api_keys (id, tenant, name, hash, tail, role, scopes, models, expires_at)
    values (:id, :tenant, :name, :hash, :tail, :role, cast(:scopes as text[]), cast(:models as text[]),
            clock_timestamp() + :life)
    on conflict (hash) do nothing returning id""")
_ACCESS = """
    select k.hash, k.id as key, k.tenant, k.role, k.scopes, k.models, k.limits as key_limits, t.limits,
           case when t.monthly_budget is null then 'none'
                when t.budget_state = 'spent' and t.budget_month = date_trunc('month', now(), 'UTC') at time zone 'UTC'
                then 'spent' else 'open' end as budget
    from api_keys k join tenants t on t.id = k.tenant
    where k.revoked_at is null and t.closed_at is null and (k.expires_at is null or k.expires_at > clock_timestamp())
"""
_BY_HASH = text(f"{_ACCESS} and k.hash = any(cast(:hashes as bytea[]))")
_BY_SESSION = text(f"""
    -- That it was seen is written once a minute.
    with seen as (
        update sessions set seen_at = clock_timestamp()
        where hash = :session and :asks and seen_at < clock_timestamp() - interval '1 minute'
          and seen_at > clock_timestamp() - :idle)
    {_ACCESS}
      and k.id = (select s.key from sessions s where s.hash = :session and s.seen_at > clock_timestamp() - :idle)""")
_COLUMNS = "id, tenant, name, tail, created_at, revoked_at, expires_at, role, scopes, models, last_used_at, replaced_by"
_FIND = text(f"select {_COLUMNS} from api_keys where id = :id")
_LIST = text(f"""
    select {_COLUMNS} from api_keys
    where (cast(:tenant as text) is null or tenant = :tenant)
      and (cast(:after as text) is null
           or (created_at, id) > (select a.created_at, a.id from api_keys a where a.id = :after))
    order by created_at, id limit :limit""")
_ROTATE = text("""
    -- The new key has all that the old one has, its end too; the old one ends after the overlap, unless sooner.
    with old as (
        select * from api_keys
        where id = :id and replaced_by is null and revoked_at is null
          and (expires_at is null or expires_at > clock_timestamp())
        for update),
    made as (
        insert into api_keys (id, tenant, name, hash, tail, role, scopes, models, limits, expires_at)
        select :new, tenant, name, :hash, :tail, role, scopes, models, limits, expires_at from old
        returning id)
    update api_keys k
    set replaced_by = made.id, expires_at = least(k.expires_at, clock_timestamp() + cast(:overlap as interval))
    from old, made where k.id = old.id
    returning k.id""")
_USED = text("""
    -- Once a minute, however many processes saw it used; a row that somebody has locked is written the next time.
    update api_keys set last_used_at = clock_timestamp()
    where id = any(array(
        select id from api_keys
        where id = any(cast(:ids as text[]))
          and (last_used_at is null or last_used_at < clock_timestamp() - interval '1 minute')
        order by id for update skip locked))""")
_REVOKE = text("""
    update api_keys set revoked_at = now() where tenant = :tenant and id = :id and revoked_at is null returning id""")


def ensure_tenant(conn: Connection, tenant: str, name: str) -> bool:
    """Make the tenant; False if it is there already."""
    return conn.execute(_TENANT, {"tenant": tenant, "name": name}).first() is not None


def insert(conn: Connection, access: Access, *, name: str, hash: bytes, tail: str, life: timedelta | None) -> bool:
    """Store a key's hash and what it may do; False if it is stored already: it stays as it is."""
    values = {"id": access.key, "tenant": access.tenant, "name": name, "hash": hash, "tail": tail, "life": life}
    models = None if access.models is None else sorted(access.models)
    given = {"role": access.role, "scopes": sorted(access.scopes), "models": models}
    return conn.execute(_INSERT, values | given).first() is not None


def access_of(conn: Connection, hashes: Sequence[bytes]) -> dict[bytes, Access]:
    """What the valid keys with these hashes may do, by hash."""
    return {bytes(row.hash): _access(row) for row in conn.execute(_BY_HASH, {"hashes": list(hashes)})}


def access_of_session(conn: Connection, session: bytes, *, idle: timedelta, asks: bool) -> Access | None:
    """What the valid key may do that opened the session with this hash; None if it, or the session, is over.

    A session that `asks` is in use from now on.
    """
    row = conn.execute(_BY_SESSION, {"session": session, "idle": idle, "asks": asks}).first()
    return _access(row) if row else None


def _access(row: Row[Any]) -> Access:
    return Access(
        row.key,
        row.tenant,
        Role(row.role),
        frozenset(map(Scope, row.scopes)),
        _models(row.models),
        limits.read(row.limits),
        limits.read(row.key_limits),
        Budget(row.budget),
    )


def find(conn: Connection, id: str) -> ApiKey | None:
    """Any tenant's key. For the operator, never for a caller."""
    row = conn.execute(_FIND, {"id": id}).first()
    return _key(row) if row else None


def page(conn: Connection, tenant: str | None, *, after: str | None, limit: int) -> list[ApiKey]:
    """The tenant's keys, oldest first, after the one named; of all tenants (None) for the operator only."""
    return [_key(row) for row in conn.execute(_LIST, {"tenant": tenant, "after": after, "limit": limit})]


def _key(row: Row[Any]) -> ApiKey:
    read = {"role": Role(row.role), "scopes": frozenset(map(Scope, row.scopes)), "models": _models(row.models)}
    return ApiKey(**{**row._mapping, **read})


def _models(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def rotate(conn: Connection, id: str, *, new: str, hash: bytes, tail: str, overlap: timedelta) -> bool:
    """Make a key that has what this one has, which ends; False if this one is not valid or was rotated already.

    For the operator, never for a caller.
    """
    values = {"id": id, "new": new, "hash": hash, "tail": tail, "overlap": overlap}
    return conn.execute(_ROTATE, values).first() is not None


def used(conn: Connection, ids: Sequence[str]) -> None:
    """Note that these keys were just used, of any tenants. For the platform's own work."""
    conn.execute(_USED, {"ids": list(ids)})


def revoke(conn: Connection, tenant: str, id: str) -> bool:
    """Make a key invalid from now on; False if there is no such valid key."""
    return conn.execute(_REVOKE, {"tenant": tenant, "id": id}).first() is not None
