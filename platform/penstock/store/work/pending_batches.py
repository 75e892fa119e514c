"""Batches that wait for somebody: for an io worker, for a worker of their model, or because whoever had them died."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection, text

from penstock.domain.work.batch import BatchState

_UNHINTED = text("""
    -- Work for io workers that nobody holds and that was not hinted lately.
    update batches set hinted_at = clock_timestamp()
    where id in (
        select id from batches
        where state in ('validating', 'finalizing') and lease is null
          and (hinted_at is null or hinted_at < clock_timestamp() - :again)
        order by deadline limit :limit
        for no key update skip locked)
    returning id, state""")

_WAITING_FOR_IO = text("""
    -- The next work for an io worker; a claim decides who gets it.
    select id, state from batches
    where state in ('validating', 'finalizing') and lease is null order by deadline limit 1""")

_OVERDUE = text("""
    select id from batches
    where state in ('validating', 'in_progress', 'paused') and finish_as is null and deadline <= clock_timestamp()
    order by deadline limit :limit""")

_PAST_DEADLINE = text("select exists (select from batches where id = :id and deadline <= clock_timestamp())")

_STUCK = text("""
    -- Batches that should have moved on to finalizing: nothing of them is open, or they are closing.
    select b.id from batches b
    where b.state in ('validating', 'in_progress', 'paused', 'cancelling')
      and (b.finish_as is not null or b.state in ('in_progress', 'paused'))
      and not exists (select from slices s where s.batch = b.id and s.state = 'running')
      and (b.finish_as is not null
           or not exists (select from slices s where s.batch = b.id and s.state in ('waiting', 'queued', 'ready')))
    order by b.deadline limit :limit""")


def unhinted(conn: Connection, *, again: timedelta, limit: int) -> list[tuple[str, BatchState]]:
    """Batches that wait for an io worker and were not hinted lately; they count as hinted from now on."""
    rows = conn.execute(_UNHINTED, {"again": again, "limit": limit})
    return [(row.id, BatchState(row.state)) for row in rows]


def waiting_for_io(conn: Connection) -> tuple[str, BatchState] | None:
    """The batch nearest its deadline that waits for validation or assembly and that nobody holds."""
    row = conn.execute(_WAITING_FOR_IO).first()
    return (row.id, BatchState(row.state)) if row else None


def overdue(conn: Connection, *, limit: int) -> list[str]:
    """Batches whose deadline has passed, by the database's clock, and that nobody closed yet."""
    return [row.id for row in conn.execute(_OVERDUE, {"limit": limit})]


def past_deadline(conn: Connection, id: str) -> bool:
    """Say whether the locked batch's deadline has passed, by the database's clock."""
    return bool(conn.execute(_PAST_DEADLINE, {"id": id}).scalar_one())


def stuck(conn: Connection, *, limit: int) -> list[str]:
    """Batches that may move on to finalizing, in case whoever should have moved them died."""
    return [row.id for row in conn.execute(_STUCK, {"limit": limit})]
