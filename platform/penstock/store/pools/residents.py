"""Residents: what is on a host, and what is learnt of a version when it is put away."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, text

from penstock.domain.pools.pool import ResidentState

_PUT = text("""
    insert into pool_residents (host, queue, state, member, awake_at)
    values (:host, :queue, :state, :member, case when :state = 'awake' then clock_timestamp() end)
    on conflict (host, queue) do update set
        state = excluded.state,
        member = case when excluded.state in ('asleep', 'stopped') then excluded.member
                      else coalesce(excluded.member, pool_residents.member) end,
        since = case when pool_residents.state = excluded.state then pool_residents.since
                     else clock_timestamp() end,
        -- One that was leaving and stays after all, since the switch was cancelled, was awake all the time.
        awake_at = case when excluded.state = 'awake' and pool_residents.state not in ('awake', 'leaving')
                        then clock_timestamp() else pool_residents.awake_at end""")
_AWAKE = text("""
    update pool_versions set wake_asked_at = null, unfit_reason = null
    where queue = :queue and pool = (select pool from workers where id = :host)
      and (wake_asked_at is not null or unfit_reason is not null)""")
_SERVED = text("""
    -- Batches of which something was settled while the version was awake wait anew from now on.
    insert into pool_served (batch, queue, until)
    select distinct s.batch, s.model, statement_timestamp() from slices s
    join pool_residents r on r.host = :host and r.queue = s.model
    where s.model = :queue and s.state = 'done' and s.done_at > r.awake_at
      and exists (select from slices o where o.batch = s.batch and o.model = s.model
                  and o.state in ('queued', 'ready', 'running'))
    on conflict (batch, queue) do update set until = excluded.until""")
_MEASURED = text("""
    update pool_versions v set tokens_per_second = m.tokens_per_second
    from workers m, workers h, pool_residents r
    where r.host = :host and r.queue = :queue and h.id = r.host and m.id = r.member and m.tokens_per_second > 0
      and v.pool = h.pool and v.queue = r.queue""")
_ASLEEP = text("""
    select r.queue, count(*)::int as hosts from pool_residents r join workers h on h.id = r.host
    where r.state = 'asleep' and h.state <> 'gone' and h.seen_at > clock_timestamp() - :gone group by r.queue""")
_GONE = text("delete from pool_residents where host = :host")


def put(conn: Connection, host: UUID, queue: str, state: ResidentState, member: UUID | None) -> None:
    """Say how a version is on a host; without a member it keeps the one it has, unless it is put away."""
    conn.execute(_PUT, {"host": host, "queue": queue, "state": state, "member": member})


def awake(conn: Connection, host: UUID, queue: str) -> None:
    """What an operator wanted has happened, and whatever kept it from being started here is over."""
    conn.execute(_AWAKE, {"host": host, "queue": queue})


def put_away(conn: Connection, host: UUID, queue: str) -> None:
    """Note whom a version served while it was awake on this host, and how fast it was; before its member is gone."""
    conn.execute(_SERVED, {"host": host, "queue": queue})
    conn.execute(_MEASURED, {"host": host, "queue": queue})


def asleep(conn: Connection, *, gone: timedelta) -> dict[str, int]:
    """On how many live hosts a version is asleep, by its queue; those that are on none are left out."""
    return {row.queue: row.hosts for row in conn.execute(_ASLEEP, {"gone": gone})}


def gone(conn: Connection, host: UUID) -> None:
    """Nothing is on this host any more."""
    conn.execute(_GONE, {"host": host})
