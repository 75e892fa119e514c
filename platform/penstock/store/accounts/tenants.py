"""Tenants: who owns keys, files and batches, and how much of a lane each gets where several have work in it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

from penstock.domain.accounts.tenant import Tenant

_MOST: Final = 10_000

_COLUMNS = """
    id, weight::float8 as weight, cache, created_at, batch_retention_days, file_retention_days,
    (select e.id from erasures e where e.tenant = tenants.id) as erasure"""
_GET = text(f"select {_COLUMNS} from tenants where id = :tenant")
_LIST = text(f"""
    select {_COLUMNS} from tenants where cast(:after as text) is null or id > :after order by id limit :limit""")
_WEIGH = text("update tenants set weight = :weight where id = :tenant returning id")


_CACHE = text("update tenants set cache = :cache where id = :tenant returning id")
_RETAIN = {
    what: text(f"update tenants set {what}_retention_days = :days where id = :tenant returning id")
    for what in ("batch", "file")
}
_CACHING = text("select id from tenants where cache order by id limit :limit")


def get(conn: Connection, tenant: str) -> Tenant | None:
    """One tenant."""
    row = conn.execute(_GET, {"tenant": tenant}).first()
    return Tenant(**row._mapping) if row else None


def page(conn: Connection, *, after: str | None = None, limit: int = _MOST) -> list[Tenant]:
    """All tenants by id, after the one named. For the operator, never for a caller."""
    return [Tenant(**row._mapping) for row in conn.execute(_LIST, {"after": after, "limit": limit})]


def weigh(conn: Connection, tenant: str, weight: float) -> bool:
    """Set a tenant's weight; False if there is no such tenant."""
    return conn.execute(_WEIGH, {"tenant": tenant, "weight": weight}).first() is not None


def set_cache(conn: Connection, tenant: str, cache: bool) -> bool:
    """Choose whether a tenant's requests use the shared cache; False if there is no such tenant."""
    return conn.execute(_CACHE, {"tenant": tenant, "cache": cache}).first() is not None


def retain(conn: Connection, tenant: str, what: str, days: int | None) -> bool:
    """Choose how many days a tenant's `batch`es or `file`s are kept, None: by the settings; False if there is none."""
    return conn.execute(_RETAIN[what], {"tenant": tenant, "days": days}).first() is not None


def caching(conn: Connection) -> list[str]:
    """Tenants whose requests use the shared cache. For the platform's own work."""
    return [row.id for row in conn.execute(_CACHING, {"limit": _MOST})]
