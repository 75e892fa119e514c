"""Timelines: what the trail, the audit, segments and deliveries say of one batch, oldest first, in one statement."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

_OF = text("""
    -- Each part is bounded by itself, and read by an index. Acts are told where they stand in the audit; the trail is
    -- only as long as the batch's pieces are, and what is known from its row is told for ever.
    with mine as (select * from batches where id = :id and tenant = :tenant and kind = :kind),
    moves as (
        select t.at, 'state' as what, jsonb_build_object('from', t.was, 'to', t.becomes) as details
        from mine m join trail t on t.batch = m.id where t.slice is null order by t.id limit :each),
    stamps as (
        select v.at, 'state' as what, jsonb_build_object('from', null, 'to', v.becomes) as details
        from mine m cross join lateral (values
            (m.created_at, case when m.inline then 'in_progress' else 'validating' end),
            (m.in_progress_at, 'in_progress'), (m.cancelling_at, 'cancelling'), (m.finalizing_at, 'finalizing'),
            (m.completed_at, 'completed'), (m.failed_at, 'failed'), (m.expired_at, 'expired'),
            (m.cancelled_at, 'cancelled')) as v(at, becomes)
        where v.at is not null and not exists (select from moves)),
    first_answer as (
        select min(g.created_at) as at from mine m join slices s on s.batch = m.id join segments g on g.slice = s.id),
    acts as (
        select a.at, a.action as what, a.details from mine m join audit a on a.tenant = m.tenant and a.target = m.id
        where a.target like 'batch%' or a.target like 'job%' order by a.id limit :each),
    children as (
        select c.created_at, 'retried' as what, jsonb_build_object('id', c.id) as details
        from mine m join batches c on c.parent = m.id and c.tenant = m.tenant order by c.created_at, c.id limit :each),
    sent as (
        select coalesce(d.ended_at, d.created_at), 'webhook' as what,
            jsonb_build_object('delivery', d.id, 'type', d.type, 'status', d.state, 'attempts', d.attempts) as details
        from mine m join deliveries d on d.object = m.id and d.tenant = m.tenant
        order by d.created_at, d.id limit :each)
    select * from moves union all select * from stamps
    union all select at, 'first_answer', '{}'::jsonb from first_answer where at is not null
    union all select * from acts union all select * from children union all select * from sent
    order by 1, 2""")


@dataclass(frozen=True)
class TimelineEntry:
    """Something that happened to a batch."""

    at: datetime
    what: str
    """`state`, `first_answer`, `retried`, `webhook`, or an act of the audit such as `batch.paused`."""
    details: dict[str, Any]


def of(conn: Connection, tenant: str, *, kind: str, id: str, each: int) -> list[TimelineEntry]:
    """What happened to a tenant's batch, oldest first, `each` of every sort; nothing if there is none such."""
    rows = conn.execute(_OF, {"tenant": tenant, "kind": kind, "id": id, "each": each})
    return [TimelineEntry(*row) for row in rows]
