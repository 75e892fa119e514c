"""Rows: what the database says of itself (I3, I4, I6, I7, I8). The rest of it is in store/invariants.py."""

from __future__ import annotations

from typing import Any

import psycopg
from faults import panel_history
from store import invariants

MUST_NOT_BE = {
    "a segment was accepted while its lease was not the slice's": """
        select g.slice, g.lease, g.seq, g.created_at from segments g join slices s on s.id = g.slice
        where not exists (
            select from trail t
            where t.batch = s.batch and t.slice = g.slice and t.lease = g.lease
              and t.becomes = 'running' and t.at <= g.created_at)
           or exists (
            select from trail t
            where t.batch = s.batch and t.slice = g.slice and t.lease = g.lease
              and t.was = 'running' and t.at < g.created_at)
           or exists (select from leases l where l.id = g.lease and g.created_at < l.opened_at)""",
    "a trail does not begin at its birth": f"""
        select t.batch, t.slice, t.becomes from trail t join batches b on b.id = t.batch
        where t.was is null and t.becomes <> case
            when t.slice in (
                -- Folds, and members that are asked once others were.
                select s.id from slices s join ensembles e on e.id = s.ensemble
                where s.member is null or {panel_history.LATER}
            ) then 'waiting'
            when t.slice is not null then 'queued' when b.inline then 'in_progress' else 'validating' end""",
    "something of a batch moved or was recorded after its end": """
        select ended.batch, ended.becomes, later.slice, later.becomes as then
        from trail ended join trail later on later.batch = ended.batch and later.id > ended.id
        where ended.slice is null and ended.becomes in ('completed', 'cancelled', 'expired', 'failed')
        union all
        select ended.batch, ended.becomes, g.slice, 'recorded'
        from trail ended join slices s on s.batch = ended.batch join segments g on g.slice = s.id
        where ended.slice is null and ended.becomes in ('completed', 'cancelled', 'expired', 'failed')
          and g.created_at > ended.at""",
    "a slice was given to an older lease than it had before": """
        select t.slice, t.before, t.lease from (
            select slice, lease, lag(lease) over (partition by slice order by id) as before
            from trail where becomes = 'running') t
        where t.lease <= t.before""",
    "a batch has not ended": """
        select id, state from batches where state not in ('completed', 'cancelled', 'expired', 'failed')""",
    "a lease is open, and everything has ended": "select id, kind, batch from leases where closed_at is null",
    **panel_history.MUST_NOT_BE,
}


def rows_that_must_not_be(database: psycopg.Connection[Any]) -> dict[str, list[str]]:
    """What the rows and the trail show that may never be, and what may not be once everything has ended."""
    found = {promise: database.execute(query.encode()).fetchall() for promise, query in MUST_NOT_BE.items()}
    for promise, query in invariants.BROKEN.items():
        found[f"it does not hold that {promise}"] = database.execute(query.encode()).fetchall()
    return {meaning: [f"{meaning}: {row}" for row in rows] for meaning, rows in found.items()}
