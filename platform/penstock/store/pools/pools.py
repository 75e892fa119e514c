"""Pools and their versions, as operators made them, and the live hosts of each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Row, text

from penstock.domain.pools.pool import (
    Pool,
    PoolHost,
    PoolKind,
    PoolMember,
    PoolResident,
    ResidentState,
    terms_as_json,
    terms_of_json,
)
from penstock.domain.pools.switch import switch_seconds
from penstock.store.models import versions

_COLUMNS: Final = """
    select p.name, p.kind, p.device, p.region, p.terms, p.memory_bytes, p.price, p.created_at,
        coalesce((select json_agg(json_build_object(
                      'queue', v.queue, 'on_demand', v.on_demand, 'pinned', v.pinned,
                      'wake_asked_at', v.wake_asked_at, 'memory_bytes', v.memory_bytes,
                      'unfit_reason', v.unfit_reason) order by v.queue)
                  from pool_versions v where v.pool = p.name), '[]') as members
    from pools p"""
_FIND = text(f"{_COLUMNS} where p.name = :name")
_PAGE = text(f"{_COLUMNS} where cast(:after as text) is null or p.name > :after order by p.name limit :limit")
_LOCK = text("select name from pools where name = :name for no key update")
_INSERT = text("""
    insert into pools (name, kind, device, region, terms, memory_bytes, price)
    values (:name, :kind, :device, :region, cast(:terms as jsonb), :memory_bytes, :price)
    on conflict (name) do nothing returning name""")
_UPDATE = text("""
    update pools set device = :device, region = :region, terms = cast(:terms as jsonb),
        memory_bytes = :memory_bytes, price = :price where name = :name""")
_DELETE = text("delete from pools where name = :name")
_KEEP_ONLY = text("delete from pool_versions where pool = :pool and queue <> all(cast(:queues as text[]))")
_PUT_MEMBER = text("""
    insert into pool_versions (pool, queue, on_demand, memory_bytes) values (:pool, :queue, :on_demand, :memory_bytes)
    on conflict (pool, queue) do update set on_demand = :on_demand, memory_bytes = :memory_bytes""")
_WAKE = text("""
    update pool_versions set wake_asked_at = clock_timestamp(), unfit_reason = null
    where pool = :pool and queue = :queue""")
_PIN = text("""
    -- Who is pinned is to come at once, also if a switch to it was cancelled a moment ago.
    update pool_versions set pinned = :pinned, wake_asked_at = case when :pinned then clock_timestamp() end,
        unfit_reason = case when :pinned then null else unfit_reason end
    where pool = :pool and queue = :queue""")
_FORGET_WAKE = text("update pool_versions set wake_asked_at = null where pool = :pool and queue = :queue")
_SERVING = text("select pool from pool_versions where queue = :queue order by pool limit :limit")
_UNFIT = text("""
    update pool_versions set unfit_reason = :reason,
        wake_asked_at = case when cast(:reason as text) is null then wake_asked_at end
    where pool = :pool and queue = :queue""")
_HOSTS = text("""
    select w.id, w.pool, w.host, w.pid, w.state, w.started_at,
        coalesce((select json_agg(json_build_object('queue', r.queue, 'state', r.state, 'member', r.member,
                                                    'since', r.since) order by r.queue)
                  from pool_residents r where r.host = w.id), '[]') as residents
    from workers w
    where w.pool = any(cast(:pools as text[])) and w.state <> 'gone' and w.seen_at > clock_timestamp() - :gone
    order by w.started_at, w.id""")
_SERVABLE = text("""
    -- What live pools may serve: the same version in several of them is once, where a call may wake it if anywhere.
    select distinct on (v.queue) v.queue, v.pool, v.on_demand,
        (p.terms ->> 'call_bound_seconds')::float8 as call_bound_seconds, ver.engine,
        (select avg(c.seconds) from switch_costs c where c.to_queue = v.queue and c.device = p.device)::float8
            as switch_seconds
    from pool_versions v join pools p on p.name = v.pool join model_versions ver on ver.queue = v.queue
    where v.unfit_reason is null and (cast(:queues as text[]) is null or v.queue = any(cast(:queues as text[])))
      and exists (select from workers w where w.pool = v.pool and w.kind = 'pool'
                  and w.state in ('starting', 'ready') and w.seen_at > clock_timestamp() - :gone)
    order by v.queue, v.on_demand desc, v.pool""")


@dataclass(frozen=True)
class Servable:
    """A version that a live pool may serve, awake or not."""

    queue: str
    pool: str
    on_demand: bool
    call_bound_seconds: float
    engine: str
    """Its profile's name."""
    switch_seconds: float | None
    """As it was measured; None: never."""

    @property
    def most_seconds(self) -> float:
        """So long a waiting call of it waits at most for it to be awake."""
        return self.call_bound_seconds + switch_seconds(self.engine, self.switch_seconds)


def find(conn: Connection, name: str) -> Pool | None:
    """One pool with its versions."""
    row = conn.execute(_FIND, {"name": name}).first()
    return _pools(conn, [row])[0] if row else None


def page(conn: Connection, *, after: str | None, limit: int) -> list[Pool]:
    """Pools by name, after the one named."""
    return _pools(conn, conn.execute(_PAGE, {"after": after, "limit": limit}).all())


def lock(conn: Connection, name: str) -> bool:
    """Let nobody else change or decide for a pool until the transaction's end; False if there is none."""
    return conn.execute(_LOCK, {"name": name}).first() is not None


def insert(conn: Connection, pool: Pool) -> bool:
    """Add a pool with its versions; False if there is one of its name."""
    if conn.execute(_INSERT, {**_values(pool), "kind": pool.kind}).first() is None:
        return False
    put_members(conn, pool.name, pool.members)
    return True


def update(conn: Connection, pool: Pool) -> None:
    """Write what may change of a pool, but its versions."""
    conn.execute(_UPDATE, _values(pool))


def put_members(conn: Connection, pool: str, members: Sequence[PoolMember]) -> None:
    """Let these be the versions of a pool; those that stay keep their pins, and why they are unfit."""
    conn.execute(_KEEP_ONLY, {"pool": pool, "queues": [one.queue for one in members]})
    for one in members:
        told = {"on_demand": one.on_demand, "memory_bytes": one.memory_bytes}
        conn.execute(_PUT_MEMBER, {"pool": pool, "queue": one.queue, **told})


def delete(conn: Connection, name: str) -> None:
    """Delete a pool, its versions and its decisions."""
    conn.execute(_DELETE, {"name": name})


def wake(conn: Connection, pool: str, queue: str) -> bool:
    """Note that an operator wants a version awake next, also one that was unfit; False if the pool has it not."""
    return conn.execute(_WAKE, {"pool": pool, "queue": queue}).rowcount == 1


def forget_wake(conn: Connection, pool: str, queue: str) -> None:
    """Want a version awake next no more: it is, or an operator thought better of it."""
    conn.execute(_FORGET_WAKE, {"pool": pool, "queue": queue})


def pin(conn: Connection, pool: str, queue: str, pinned: bool) -> bool:
    """Note that an operator wants a version always awake, or no more; False if the pool has it not."""
    return conn.execute(_PIN, {"pool": pool, "queue": queue, "pinned": pinned}).rowcount == 1


def unfit(conn: Connection, pool: str, queue: str, reason: str | None) -> bool:
    """Note why a version can't be started in a pool, or (None) that it may be tried again."""
    return conn.execute(_UNFIT, {"pool": pool, "queue": queue, "reason": reason}).rowcount == 1


def serving(conn: Connection, queue: str, *, limit: int) -> list[str]:
    """Pools that may serve a version."""
    return list(conn.execute(_SERVING, {"queue": queue, "limit": limit}).scalars())


def hosts(conn: Connection, pools: Sequence[str], *, gone: timedelta) -> dict[str, list[PoolHost]]:
    """The live hosts of these pools with what is on them."""
    found: dict[str, list[PoolHost]] = {}
    for row in conn.execute(_HOSTS, {"pools": list(pools), "gone": gone}):
        residents = tuple(_resident(one) for one in row.residents)
        host = PoolHost(row.id, row.host, row.pid, row.state, row.started_at, residents)
        found.setdefault(row.pool, []).append(host)
    return found


def servable(conn: Connection, queues: Sequence[str] | None, *, gone: timedelta) -> dict[str, Servable]:
    """Those of these versions (None: of all) that live pools may serve, by queue."""
    values = {"queues": None if queues is None else list(queues), "gone": gone}
    return {row.queue: Servable(**row._mapping) for row in conn.execute(_SERVABLE, values)}


def _values(pool: Pool) -> dict[str, Any]:
    told = {"name": pool.name, "device": pool.device, "region": pool.region, "price": pool.price}
    return told | {"terms": json.dumps(terms_as_json(pool.terms)), "memory_bytes": pool.memory_bytes}


def _pools(conn: Connection, rows: Sequence[Row[Any]]) -> list[Pool]:
    known = versions.of_queues(conn, [one["queue"] for row in rows for one in row.members])

    def members(row: Row[Any]) -> tuple[PoolMember, ...]:
        return tuple(
            PoolMember(
                known[one["queue"]],
                one["on_demand"],
                one["pinned"],
                _time(one["wake_asked_at"]),
                one["memory_bytes"],
                one["unfit_reason"],
            )
            for one in row.members
        )

    return [
        Pool(
            name=row.name,
            kind=PoolKind(row.kind),
            terms=terms_of_json(row.terms),
            members=members(row),
            device=row.device,
            region=row.region,
            memory_bytes=row.memory_bytes,
            price=row.price,
            created_at=row.created_at,
        )
        for row in rows
    ]


def _resident(one: Mapping[str, Any]) -> PoolResident:
    member = UUID(one["member"]) if one["member"] else None
    since = _time(one["since"])
    assert since is not None, "it is not null"
    return PoolResident(one["queue"], ResidentState(one["state"]), member, since)


def _time(written: str | None) -> datetime | None:
    return None if written is None else datetime.fromisoformat(written)
