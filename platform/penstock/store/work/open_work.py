"""Open work over all tenants, for operators: sums by model and lane, what is late, what runs; it reads no history."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from penstock.domain.work.lane import Lane
from penstock.domain.work.open_work import AllOpen, LateBatch, OpenLane, RunningBatch

_LEFT = "s.tokens::float8 * (s.lines - s.completed - s.failed) / s.lines"

_OPEN = text(f"""
    -- Open slices are read once (slices_open; 100,000 of 2,000 batches: 0.4 s on busy cores), then everything goes by
    -- batch, model and lane. One is late if the tokens before it and its own, by lane and deadline, take the model's
    -- live workers longer than its deadline; one of them that has not measured itself counts as the mean of the others,
    -- as in batches/eta.py.
    with open as materialized (
        select s.batch, s.model, s.lane, s.lane_rank, s.held, sum({_LEFT}) * coalesce(max(m.tokens_scale), 1) as tokens,
               sum(s.lines - s.completed - s.failed)::bigint as lines, bool_or(s.state = 'running') as runs
        from slices s left join models m on m.name = s.model
        where s.state in ('queued', 'ready', 'running') and s.model is not null
        group by s.batch, s.model, s.lane, s.lane_rank, s.held),
    rates as (
        select model, count(*) * avg(nullif(tokens_per_second, 0)) as rate from workers
        where kind = 'gpu' and state = 'ready' and seen_at > clock_timestamp() - :gone group by model),
    parts as materialized (
        select o.*, b.tenant, b.deadline, b.created_at,
               sum(o.tokens) over (partition by o.model, o.held order by o.lane_rank, b.deadline, o.batch) / r.rate
                   as seconds
        from open o
        -- Whose slices are open has not ended: said, so that no plan reads the others (batches_unfinished).
        join batches b on b.id = o.batch
            and b.state in ('validating', 'in_progress', 'paused', 'cancelling', 'finalizing')
        left join rates r on r.model = o.model),
    late as (
        select batch, tenant, min(lane) as lane, array_agg(distinct model order by model) as models,
               min(deadline) as deadline, max(seconds) as seconds
        from parts where not held group by batch, tenant
        having max(seconds) > extract(epoch from min(deadline) - clock_timestamp())),
    sums as (
        select p.model, p.lane, count(distinct p.batch)::int as batches,
               coalesce(sum(p.lines) filter (where not p.held), 0)::bigint as lines,
               coalesce(sum(p.tokens) filter (where not p.held), 0) as tokens,
               coalesce(sum(p.lines) filter (where p.held), 0)::bigint as paused_lines,
               extract(epoch from clock_timestamp() - min(p.created_at) filter (where not p.held and not p.runs))
                   as waiting_seconds,
               count(distinct p.batch) filter (
                   where not p.held and p.seconds > extract(epoch from p.deadline - clock_timestamp()))::int as late,
               min(extract(epoch from p.deadline - clock_timestamp()) - coalesce(p.seconds, 0))
                   filter (where not p.held) as slack_seconds
        from parts p group by grouping sets ((p.model, p.lane), (p.lane)))
    select (select coalesce(jsonb_agg(to_jsonb(sums)), '[]') from sums) as sums,
           (select count(*) from late)::int as late_count,
           (select coalesce(jsonb_agg(to_jsonb(first)), '[]')
            from (select * from late order by deadline, batch limit :limit) first) as late,
           clock_timestamp() as now""")

_BATCHES = text("""
    -- Those that have not ended (batches_unfinished).
    select kind, state, lane, count(*)::int as batches from batches
    where state in ('validating', 'in_progress', 'paused', 'cancelling', 'finalizing') group by 1, 2, 3""")

_RUNNING = text("""
    -- By open leases: as many as workers have slice places.
    select s.lane, s.batch, s.tenant, array_agg(distinct s.model order by s.model) as models,
           count(*)::int as slices, count(distinct l.holder)::int as workers,
           sum(s.lines - s.completed - s.failed)::int as lines, min(l.opened_at) as since,
           count(*) over (partition by s.lane)::int as in_lane
    from leases l join slices s on s.id = l.slice and s.lease = l.id
    where l.closed_at is null and s.model is not null
    group by s.lane, s.batch, s.tenant order by s.lane, lines desc, s.batch""")


def read(conn: Connection, *, gone: timedelta, late: int) -> AllOpen:
    """All open work by lane, by model and lane, and so many of the batches that will be late; one statement."""
    row = conn.execute(_OPEN, {"gone": gone, "limit": late}).one()
    lanes = tuple(OpenLane(**one | {"lane": Lane(one["lane"])}) for one in row.sums)
    return AllOpen(lanes, row.late_count, tuple(_late(one, row.now) for one in row.late), row.now)


def batches(conn: Connection) -> list[tuple[str, str, str, int]]:
    """Batches and jobs that have not ended: (kind, state, lane, how many). For metrics."""
    return [(row.kind, row.state, row.lane, row.batches) for row in conn.execute(_BATCHES)]


def running(conn: Connection) -> list[RunningBatch]:
    """What workers hold slices of, by lane, the most lines first."""
    rows = conn.execute(_RUNNING)
    return [RunningBatch(**row._asdict() | {"lane": Lane(row.lane), "models": tuple(row.models)}) for row in rows]


def _late(one: Mapping[str, Any], now: datetime) -> LateBatch:
    seconds = min(one["seconds"], 10 * 365 * 86_400)
    deadline = datetime.fromisoformat(one["deadline"])
    lane, models = Lane(one["lane"]), tuple(one["models"])
    return LateBatch(one["batch"], one["tenant"], lane, models, deadline, now + timedelta(seconds=seconds))
