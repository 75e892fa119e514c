"""Keys: API keys as hashes, and the tenants that they speak for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import Connection, text

from penstock.domain.accounts.access import Access, Budget, Role, Scope
from penstock.domain.accounts.api_key import ApiKey
from penstock.store.accounts import limits

_TENANT = text("insert into tenants (id, name) values (:tenant, :name) on conflict (id) do nothing")
_INSERT = text("""
    insert into api_keys (id, tenant, name, hash, tail, role, scopes, expires_at)
    values (:id, :tenant, :name, :hash, :tail, :role, cast(:scopes as text[]), clock_timestamp() + :life)
    on conflict (hash) do nothing""")
_BY_HASH = text("""
    select k.hash, k.id as key, k.tenant, k.role, k.scopes, k.limits as key_limits, t.limits,
           case when t.monthly_budget is null then 'none'
                when t.budget_state = 'spent' and t.budget_month = date_trunc('month', now(), 'UTC') at time zone 'UTC'
                then 'spent' else 'open' end as budget
    from api_keys k join tenants t on t.id = k.tenant
    where k.hash = any(cast(:hashes as bytea[])) and k.revoked_at is null
      and (k.expires_at is null or k.expires_at > clock_timestamp())""")
_LIST = text("""
    select id, tenant, name, tail, created_at, revoked_at, expires_at, role, scopes from api_keys
    where tenant = :tenant order by created_at, id""")
_REVOKE = text("""
    update api_keys set revoked_at = now() where tenant = :tenant and id = :id and revoked_at is null returning id""")


def ensure_tenant(conn: Connection, tenant: str, name: str) -> None:
    """Make the tenant unless it is there."""
    conn.execute(_TENANT, {"tenant": tenant, "name": name})


def insert(conn: Connection, access: Access, *, name: str, hash: bytes, tail: str, life: timedelta | None) -> None:
    """Store a key's hash and what it may do; a key that is stored already stays as it is."""
    values = {"id": access.key, "tenant": access.tenant, "name": name, "hash": hash, "tail": tail, "life": life}
    conn.execute(_INSERT, values | {"role": access.role, "scopes": sorted(access.scopes)})


def access_of(conn: Connection, hashes: Sequence[bytes]) -> dict[bytes, Access]:
    """What the valid keys with these hashes may do, by hash."""
    return {
        bytes(row.hash): Access(
            row.key,
            row.tenant,
            Role(row.role),
            frozenset(map(Scope, row.scopes)),
            limits.read(row.limits),
            limits.read(row.key_limits),
            Budget(row.budget),
        )
        for row in conn.execute(_BY_HASH, {"hashes": list(hashes)})
    }


def page(conn: Connection, tenant: str) -> list[ApiKey]:
    """The tenant's keys, oldest first."""
    return [
        ApiKey(**{**row._mapping, "role": Role(row.role), "scopes": frozenset(map(Scope, row.scopes))})
        for row in conn.execute(_LIST, {"tenant": tenant})
    ]


def revoke(conn: Connection, tenant: str, id: str) -> bool:
    """Make a key invalid from now on; False if there is no such valid key."""
    return conn.execute(_REVOKE, {"tenant": tenant, "id": id}).first() is not None
