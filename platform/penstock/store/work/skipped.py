"""Skipped lines: the slice of those that validation refused, which nobody but their validation ever holds.

It goes the way of every slice, in the one transaction that publishes the plan: so recording, counts, assembly and
deletion are as with all others.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, text

from penstock.domain.work.lane import Lane

_INSERT = text("""
    insert into slices (batch, tenant, lane, lane_rank, deadline, state, plan_offset, plan_bytes,
                        lines, first_line, last_line, tokens)
    select id, tenant, lane, :lane_rank, deadline, 'queued', 0, 0, :lines, :first_line, :last_line, 0
    from batches where id = :batch
    returning id""")

_READY = text("update slices set state = 'ready' where id = :slice")

_HOLD = text("""
    -- Its lease is as good as the validation's, and ends in the same transaction.
    with opened as (
        insert into leases (kind, slice, batch, holder, nonce, expires_at)
        select 'slice', :slice, batch, holder, :nonce, expires_at from leases where id = :validation
        returning id)
    update slices s set state = 'running', lease = opened.id from opened where s.id = :slice
    returning s.lease""")

_COUNT = text("select coalesce(sum(lines), 0) from slices where batch = :batch and model is null and ensemble is null")


def count(conn: Connection, batch: str) -> int:
    """How many lines of a batch were skipped."""
    return int(conn.execute(_COUNT, {"batch": batch}).scalar_one())


def hold(
    conn: Connection, batch: str, lane: Lane, *, lines: int, first_line: int, last_line: int, lease: int, nonce: UUID
) -> tuple[int, int]:
    """Make the slice, held by whoever has this validation lease: the slice and its own lease. The batch is locked."""
    values = {"batch": batch, "lane_rank": lane.rank, "lines": lines, "first_line": first_line, "last_line": last_line}
    slice = int(conn.execute(_INSERT, values).scalar_one())
    conn.execute(_READY, {"slice": slice})
    held = conn.execute(_HOLD, {"slice": slice, "nonce": nonce, "validation": lease}).scalar_one()
    return slice, int(held)
