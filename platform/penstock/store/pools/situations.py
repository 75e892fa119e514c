"""Situations: what a host's decision rests on, in two statements: of its versions, and of what waits for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from penstock.store.models.tunings import tuned
from penstock.store.pools.wants import LIVE

_LIVE_HOST = "h.state <> 'gone' and h.seen_at > clock_timestamp() - :gone"

_VERSIONS = text(f"""
    -- Each version of the pool, as this host stands to it. Speeds: as its member here measures, as one measured here
    -- before, as others are, as it was tuned on such a device. Costs: from what is awake here now, else from anything,
    -- else what its engine took to load when it was tuned.
    with awake as materialized (
        select queue, member from pool_residents where host = :host and state in ('awake', 'leaving'))
    select v.queue, v.on_demand, v.pinned or p.kind = 'dedicated' as pinned, v.wake_asked_at is not null as wake,
        v.unfit_reason is not null as unfit, ver.engine, coalesce(m.tokens_scale, 1)::float8 as tokens_scale,
        r.state as state,
        extract(epoch from clock_timestamp() - r.awake_at)::float8 as awake_seconds,
        greatest(0, extract(epoch from clock_timestamp() - greatest(r.awake_at, own.busy_at, done.at)))::float8
            as idle_seconds,
        coalesce(nullif(own.tokens_per_second, 0), v.tokens_per_second, nullif(others.mean, 0),
                 tuned.tokens_per_second)::float8 as tokens_per_second,
        others.workers as others, others.tokens_per_second as others_tokens_per_second,
        -- All versions of a dedicated pool are awake on each of its hosts.
        p.kind = 'shared'
          and (exists (select from pool_residents x join workers h on h.id = x.host
                       where x.queue = v.queue and x.host <> :host and h.pool = p.name
                         and x.state in ('waking', 'awake') and {_LIVE_HOST})
            or exists (select from pool_decisions d join workers h on h.id = d.host
                       where d.pool = p.name and d.ended_at is null and d.host <> :host and d.comes = v.queue
                         and {_LIVE_HOST})) as taken,
        exists (select from pool_residents x join workers h on h.id = x.host
                where x.queue = v.queue and h.pool <> p.name and x.state = 'waking' and {_LIVE_HOST}) as coming,
        -- Whoever was switched to again since, because an operator wanted it, takes its turns as before.
        exists (select from pool_decisions d
                where d.pool = p.name and d.state = 'cancelled' and d.comes = v.queue
                  and d.ended_at > clock_timestamp() - :cancelled
                  and not exists (select from pool_decisions later
                                  where later.pool = d.pool and later.comes = d.comes and later.id > d.id))
            as cancelled,
        (select extract(epoch from clock_timestamp() - min(w.since))::float8 from pool_wants w
         where w.queue = v.queue and w.seen_at > clock_timestamp() - :wanted) as oldest_call,
        coalesce(
            (select avg(c.seconds) from switch_costs c where c.to_queue = v.queue and c.device = p.device
             and c.from_queue = any(coalesce(nullif(array(select queue from awake), '{{}}'), '{{""}}'))),
            (select avg(c.seconds) from switch_costs c where c.to_queue = v.queue and c.device = p.device),
            tuned.load_seconds
        )::float8 as switch_seconds
    from pools p
    join pool_versions v on v.pool = p.name
    join model_versions ver on ver.queue = v.queue
    join models m on m.name = v.queue
    left join workers own_host on own_host.id = :host{tuned("v.queue", "own_host.device")}
    left join pool_residents r on r.host = :host and r.queue = v.queue
    left join workers own on own.id = r.member and own.state = 'ready'
    left join lateral (
        select max(s.done_at) as at from slices s where s.model = v.queue and s.state = 'done') done
        on r.state = 'awake'
    cross join lateral (
        select count(*)::int as workers, coalesce(sum(w.tokens_per_second), 0)::float8 as tokens_per_second,
            avg(nullif(w.tokens_per_second, 0)) as mean
        from workers w
        where w.kind = 'gpu' and w.model = v.queue and w.state = 'ready' and w.seen_at > clock_timestamp() - :gone
          and w.id <> all(array(select member from awake where member is not null))) others
    where p.name = :pool
    order by v.queue""")

_LEFT = "s.tokens::float8 * (s.lines - s.completed - s.failed) / s.lines"

_WORK = text(f"""
    -- What is left, by batch. What waits is in slices_waiting, what runs is found by its lease: neither looks at slices
    -- that are done. A batch that was served before its version was put away waits from then on.
    with open as (
        select s.model as queue, s.batch, s.lane, s.deadline, sum({_LEFT}) as tokens
        from slices s
        where s.model = any(cast(:queues as text[])) and s.state in ('queued', 'ready') and not s.held
        group by s.model, s.batch, s.lane, s.deadline
        union all
        select s.model, s.batch, s.lane, s.deadline, sum({_LEFT})
        from leases l join slices s on s.id = l.slice and s.lease = l.id
        where l.closed_at is null and s.model = any(cast(:queues as text[]))
        group by s.model, s.batch, s.lane, s.deadline)
    select o.queue, o.lane, extract(epoch from min(o.deadline) - clock_timestamp())::float8 as seconds,
        sum(o.tokens)::float8 as tokens,
        greatest(0, extract(epoch from clock_timestamp()
                            - min(greatest(coalesce(b.in_progress_at, b.created_at), p.until))))::float8 as waited
    from open o join batches b on b.id = o.batch
    left join pool_served p on p.batch = o.batch and p.queue = o.queue
    -- Deadlines that are less than a tenth apart are one, the soonest: a thousand batches are some dozens of rows.
    group by o.queue, o.lane,
        floor(ln(greatest(1, extract(epoch from o.deadline - clock_timestamp())::float8)) / ln(1.1::float8))
    order by o.queue, seconds""")

_LAST_HOUR = text("""
    -- Whatever made its place free, a version that a call waited for came for it too.
    select count(*) filter (where why = 'call'
            or details #>> array['waiting', comes, 'oldest_call_seconds'] is not null)::int as for_calls,
        coalesce(sum(seconds), 0)::float8 as lost_seconds
    from pool_decisions
    where pool = :pool and at > clock_timestamp() - interval '1 hour' and state <> 'cancelled'""")


@dataclass(frozen=True)
class VersionFacts:
    """A version of a pool, as one host stands to it."""

    queue: str
    on_demand: bool
    pinned: bool
    wake: bool
    """An operator wants it next."""
    unfit: bool
    engine: str
    """Its profile's name."""
    tokens_scale: float
    """Real over estimated tokens."""
    state: str | None
    """On this host; None: it never was here."""
    awake_seconds: float | None
    idle_seconds: float
    tokens_per_second: float | None
    others: int
    """Live workers that serve it and are not this host's."""
    others_tokens_per_second: float
    taken: bool
    """It is awake, or coming, on another live host of the pool, which is shared."""
    coming: bool
    """It is about to be awake on a live host of another pool."""
    cancelled: bool
    """An operator cancelled the last switch to it a little while ago."""
    oldest_call: float | None
    switch_seconds: float | None


@dataclass(frozen=True)
class OpenTokens:
    """What is left of a version's work in one lane with deadlines near each other, by estimate."""

    queue: str
    lane: str
    seconds: float
    """Until the soonest of them."""
    tokens: float
    waited: float
    """Seconds, of the batch that has waited longest."""


def versions(conn: Connection, pool: str, host: UUID, *, gone: timedelta, cancelled: timedelta) -> list[VersionFacts]:
    """The pool's versions; `cancelled`: how long one is left alone after its switch was cancelled."""
    values: Mapping[str, Any] = {"pool": pool, "host": host, "gone": gone, "cancelled": cancelled, "wanted": LIVE}
    return [VersionFacts(**row._mapping) for row in conn.execute(_VERSIONS, values)]


def work(conn: Connection, queues: list[str]) -> list[OpenTokens]:
    """What is left for these versions, by queue and deadline."""
    return [OpenTokens(**row._mapping) for row in conn.execute(_WORK, {"queues": queues})]


def last_hour(conn: Connection, pool: str) -> tuple[int, float]:
    """Switches of the last hour to versions with waiting calls, and the seconds that all switches took."""
    row = conn.execute(_LAST_HOUR, {"pool": pool}).one()
    return row.for_calls, row.lost_seconds
