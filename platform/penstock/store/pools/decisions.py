"""Decisions of pools: each switch is a row, with what it was based on, how far it is, and what it cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Row, text

from penstock.domain.pools.switch import MAY_BE_CANCELLED, PoolSwitch, SwitchState

_COLUMNS: Final = """
    select id, pool, host, at, why, leaves, comes, method, details, state, ended_at, seconds, error
    from pool_decisions"""
_INSERT = text("""
    insert into pool_decisions (pool, host, why, leaves, comes, method, details, state)
    values (:pool, :host, :why, :leaves, :comes, :method, cast(:details as jsonb), 'decided')
    returning id""")
_LOCK = text(f"{_COLUMNS} where id = :id for no key update")
_MOVE = text("update pool_decisions set state = :state, error = coalesce(:error, error) where id = :id")
_END = text("""
    update pool_decisions set state = :state, ended_at = clock_timestamp(), seconds = :seconds,
        error = coalesce(:error, error)
    where id = :id""")
_CANCEL = text("""
    update pool_decisions set state = 'cancelled', ended_at = clock_timestamp(), error = :by
    where id = (select id from pool_decisions
                where pool = :pool and ended_at is null and state = any(cast(:states as text[]))
                order by id desc limit 1 for no key update)
      and state = any(cast(:states as text[]))
    returning id""")
_OPEN = text(f"{_COLUMNS} where pool = :pool and ended_at is null order by id desc")
_PAGE = text(f"""{_COLUMNS}
    where pool = :pool and (cast(:before as bigint) is null or id < :before) order by id desc limit :limit""")
_ORPHANS = text("""
    -- Of hosts that are gone, or this one from before: nobody carries them out any more.
    update pool_decisions d set state = 'failed', ended_at = clock_timestamp(),
        error = coalesce(error, 'Its host is gone.')
    where d.pool = :pool and d.ended_at is null
      and (d.host = :host or not exists (select from workers w where w.id = d.host and w.state <> 'gone'
                                         and w.seen_at > clock_timestamp() - :gone))""")
_OF_HOST = text("""
    update pool_decisions set state = 'failed', ended_at = clock_timestamp(),
        error = coalesce(error, 'Its host has ended.')
    where host = :host and ended_at is null""")
_FORGET = text("delete from pool_decisions where pool = :pool and ended_at < clock_timestamp() - :kept")
_LEARN = text("""
    insert into switch_costs (from_queue, to_queue, method, device, seconds)
    select coalesce(d.leaves, ''), d.comes, d.method, p.device, :seconds
    from pool_decisions d join pools p on p.name = d.pool where d.id = :id and d.comes is not null
    on conflict (to_queue, device, from_queue, method) do update set
        seconds = switch_costs.seconds + (excluded.seconds - switch_costs.seconds) / least(switch_costs.count + 1, 10),
        count = switch_costs.count + 1""")


def insert(
    conn: Connection,
    pool: str,
    host: UUID,
    *,
    why: str,
    leaves: str | None,
    comes: str | None,
    method: str,
    details: Mapping[str, Any],
) -> int:
    """Write a decision down."""
    told = {"why": why, "leaves": leaves, "comes": comes, "method": method, "details": json.dumps(dict(details))}
    return int(conn.execute(_INSERT, {"pool": pool, "host": host, **told}).scalar_one())


def lock(conn: Connection, id: int) -> PoolSwitch | None:
    """One decision, which nobody else changes until the transaction's end; None if its pool is gone."""
    row = conn.execute(_LOCK, {"id": id}).first()
    return _switch(row) if row else None


def move(conn: Connection, id: int, state: SwitchState, error: str | None) -> None:
    """Say how far the locked decision is."""
    conn.execute(_MOVE, {"id": id, "state": state, "error": error})


def end(conn: Connection, id: int, state: SwitchState, seconds: float | None, error: str | None) -> None:
    """End the locked decision."""
    conn.execute(_END, {"id": id, "state": state, "seconds": seconds, "error": error})


def learn(conn: Connection, id: int, seconds: float) -> None:
    """Take a switch's time into the mean of those like it."""
    conn.execute(_LEARN, {"id": id, "seconds": seconds})


def cancel(conn: Connection, pool: str, by: str) -> int | None:
    """Cancel a pool's switch that has not begun to stop its engine; its id, None if there is none."""
    found: int | None = conn.execute(_CANCEL, {"pool": pool, "by": by, "states": sorted(MAY_BE_CANCELLED)}).scalar()
    return found


def open_ones(conn: Connection, pool: str) -> list[PoolSwitch]:
    """Switches that are under way, the newest first."""
    return [_switch(row) for row in conn.execute(_OPEN, {"pool": pool})]


def page(conn: Connection, pool: str, *, before: int | None, limit: int) -> list[PoolSwitch]:
    """A pool's decisions, newest first, older than the one named."""
    return [_switch(row) for row in conn.execute(_PAGE, {"pool": pool, "before": before, "limit": limit})]


def end_orphans(conn: Connection, pool: str, host: UUID, *, gone: timedelta) -> None:
    """End what hosts that are gone, or this one, left open."""
    conn.execute(_ORPHANS, {"pool": pool, "host": host, "gone": gone})


def end_of_host(conn: Connection, host: UUID) -> None:
    """End what a host that ends leaves open."""
    conn.execute(_OF_HOST, {"host": host})


def forget(conn: Connection, pool: str, *, kept: timedelta) -> None:
    """Delete decisions that ended longer ago than this."""
    conn.execute(_FORGET, {"pool": pool, "kept": kept})


def _switch(row: Row[Any]) -> PoolSwitch:
    return PoolSwitch(**{**row._mapping, "state": SwitchState(row.state)})
