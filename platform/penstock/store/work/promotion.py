"""Promotion: slices of batches that run out of time stand one lane above their own, at most."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection, text

from penstock.domain.work.slack import Outlook

_OUTLOOKS = text("""
    -- The batches with the nearest deadlines whose models have a measured rate. What is recorded of a slice is done.
    with fleet as (
        select model, sum(tokens_per_second) as rate from workers
        where kind = 'gpu' and state = 'ready' and seen_at > clock_timestamp() - :gone
        group by model having sum(tokens_per_second) > 0),
    near as (
        select id, deadline, created_at from batches
        where state = 'in_progress' and finish_as is null and lane <> 'priority' and deadline > clock_timestamp()
        order by deadline limit :limit)
    select near.id as batch, open.model, open.promoted, open.unpromoted,
           extract(epoch from near.deadline - clock_timestamp())::float8 as left_seconds,
           extract(epoch from near.deadline - near.created_at)::float8 as window_seconds,
           open.tokens * coalesce(m.tokens_scale, 1) / fleet.rate as needed_seconds
    from near
    cross join lateral (
        select s.model, bool_or(s.promoted) as promoted, not bool_and(s.promoted) as unpromoted,
               sum(s.tokens * (s.lines - s.completed - s.failed) / s.lines::float8) as tokens
        from slices s where s.batch = near.id and s.state in ('queued', 'ready', 'running') group by s.model) open
    join fleet on fleet.model = open.model
    left join models m on m.name = open.model""")

_SET = text("""
    -- What is ready in the lane that it leaves is fed, and hinted, anew; what runs keeps its hand.
    update slices set promoted = :promoted, lane_rank = lane_rank + case when :promoted then -1 else 1 end,
                      state = case when state = 'ready' then 'queued' else state end
    where batch = :batch and model = :model and state in ('queued', 'ready', 'running')
      and promoted <> :promoted and lane <> 'priority'""")


def outlooks(conn: Connection, *, gone: timedelta, limit: int) -> list[Outlook]:
    """How batches below the first lane stand in time, those nearest their deadline; none without a measured rate."""
    return [Outlook(**row._mapping) for row in conn.execute(_OUTLOOKS, {"gone": gone, "limit": limit})]


def put(conn: Connection, batch: str, model: str, promoted: bool) -> int:
    """Put a locked batch's open slices of a model one lane above their own, or back; how many moved."""
    return conn.execute(_SET, {"batch": batch, "model": model, "promoted": promoted}).rowcount
