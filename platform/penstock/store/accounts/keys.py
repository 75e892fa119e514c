"""Keys: API keys as hashes, and the tenants that they speak for."""

from __future__ import annotations

from sqlalchemy import Connection, text

from penstock.domain.accounts.api_key import ApiKey

_TENANT = text("insert into tenants (id, name) values (:tenant, :name) on conflict (id) do nothing")
_INSERT = text("""
    insert into api_keys (id, tenant, name, hash, tail) values (:id, :tenant, :name, :hash, :tail)
    on conflict (hash) do nothing""")
_BY_HASH = text("select tenant from api_keys where hash = :hash and revoked_at is null")
_LIST = text("""
    select id, tenant, name, tail, created_at, revoked_at from api_keys
    where tenant = :tenant order by created_at, id""")
_REVOKE = text("""
    update api_keys set revoked_at = now() where tenant = :tenant and id = :id and revoked_at is null returning id""")


def ensure_tenant(conn: Connection, tenant: str, name: str) -> None:
    """Make the tenant unless it is there."""
    conn.execute(_TENANT, {"tenant": tenant, "name": name})


def insert(conn: Connection, tenant: str, *, id: str, name: str, hash: bytes, tail: str) -> None:
    """Store a key's hash; a key that is stored already stays as it is."""
    conn.execute(_INSERT, {"id": id, "tenant": tenant, "name": name, "hash": hash, "tail": tail})


def tenant_of(conn: Connection, hash: bytes) -> str | None:
    """The tenant whose valid key has this hash."""
    return conn.execute(_BY_HASH, {"hash": hash}).scalar()


def page(conn: Connection, tenant: str) -> list[ApiKey]:
    """The tenant's keys, oldest first."""
    return [ApiKey(**row._mapping) for row in conn.execute(_LIST, {"tenant": tenant})]


def revoke(conn: Connection, tenant: str, id: str) -> bool:
    """Make a key invalid from now on; False if there is no such valid key."""
    return conn.execute(_REVOKE, {"tenant": tenant, "id": id}).first() is not None
