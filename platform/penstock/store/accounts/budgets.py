"""Budgets: what tenants may spend in a month, and how that was found to stand."""

from __future__ import annotations

from sqlalchemy import Connection, text

from penstock.domain.limits.budget import TenantBudget

_MONTH = "date_trunc('month', now() at time zone 'UTC')::date"

_HAS = text("select monthly_budget is not null from tenants where id = :tenant")
_SET = text("update tenants set monthly_budget = :budget where id = :tenant returning id")
_COLUMNS = f"""
    select id as tenant, monthly_budget as budget, {_MONTH} as month,
           case when budget_month = {_MONTH} then budget_used else 0 end as used,
           case when budget_month = {_MONTH} then budget_state end as state from tenants"""
_GET = text(f"{_COLUMNS} where id = :tenant")
_DUE = text(f"""
    {_COLUMNS} where monthly_budget is not null or budget_state is not null
       or exists (select from batches b where b.tenant = tenants.id and b.state = 'paused' and b.paused_as = 'budget')
    order by id""")
_LOCK = text(f"{_COLUMNS} where id = :tenant for no key update")
_SPENT = text(f"""
    -- As usage sums it: segments by the time at which they were recorded, and what became of swept ones.
    select coalesce((
            select sum(g.token_cost + g.gpu_cost) from segments g join slices s on s.id = g.slice
            where s.tenant = :tenant and g.created_at >= {_MONTH}::timestamp at time zone 'UTC'), 0)
        + coalesce((
            select sum(token_cost + gpu_cost) from usage_lines
            where tenant = :tenant and hour >= {_MONTH}::timestamp at time zone 'UTC'), 0)
        + coalesce((
            select sum(token_cost + gpu_cost) from usage_calls
            where tenant = :tenant and hour >= {_MONTH}::timestamp at time zone 'UTC'), 0)""")
_FOUND = text(f"""
    update tenants set budget_month = {_MONTH}, budget_used = :used, budget_state = :state where id = :tenant""")
_EVENT = text("""
    insert into events (id, tenant, batch, type) values (:id, :tenant, null, :type)""")
_TO_PAUSE = text("""
    select kind, id from batches
    where tenant = :tenant and state = 'in_progress' and finish_as is null order by id limit :limit""")
_TO_RESUME = text("""
    select kind, id from batches
    where tenant = :tenant and state = 'paused' and paused_as = 'budget' and finish_as is null
    order by id limit :limit""")


def has(conn: Connection, tenant: str) -> bool:
    """Whether the tenant has a budget."""
    return bool(conn.execute(_HAS, {"tenant": tenant}).scalar())


def set_(conn: Connection, tenant: str, picos: int | None) -> bool:
    """Set a tenant's budget of a month, or take it away; False without such a tenant."""
    return conn.execute(_SET, {"tenant": tenant, "budget": picos}).first() is not None


def get(conn: Connection, tenant: str) -> TenantBudget | None:
    """How a tenant's budget stood when it was looked at last; None without such a tenant."""
    row = conn.execute(_GET, {"tenant": tenant}).first()
    return TenantBudget.of(**row._mapping) if row else None


def due(conn: Connection) -> list[TenantBudget]:
    """Those that must be looked at."""
    return [TenantBudget.of(**row._mapping) for row in conn.execute(_DUE)]


def lock(conn: Connection, tenant: str) -> TenantBudget | None:
    """The same of one tenant, whose row nobody else changes until the transaction ends."""
    row = conn.execute(_LOCK, {"tenant": tenant}).first()
    return TenantBudget.of(**row._mapping) if row else None


def spent(conn: Connection, tenant: str) -> int:
    """Picounits of this month."""
    return int(conn.execute(_SPENT, {"tenant": tenant}).scalar_one())


def found(conn: Connection, tenant: str, used: int, state: str | None) -> None:
    """Write how a tenant's budget stands."""
    conn.execute(_FOUND, {"tenant": tenant, "used": used, "state": state})


def insert_event(conn: Connection, tenant: str, id: str, type: str) -> None:
    """An event of the tenant's own, of no batch."""
    conn.execute(_EVENT, {"tenant": tenant, "id": id, "type": type})


def to_pause(conn: Connection, tenant: str, limit: int) -> list[tuple[str, str]]:
    """Batches and jobs (kind, id) that run."""
    return [(row.kind, row.id) for row in conn.execute(_TO_PAUSE, {"tenant": tenant, "limit": limit})]


def to_resume(conn: Connection, tenant: str, limit: int) -> list[tuple[str, str]]:
    """Batches and jobs (kind, id) that a spent budget paused."""
    return [(row.kind, row.id) for row in conn.execute(_TO_RESUME, {"tenant": tenant, "limit": limit})]
