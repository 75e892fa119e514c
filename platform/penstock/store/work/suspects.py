"""Suspects: lines that were in flight at engine deaths, and which are being asked now. See domain/work/suspicion.py.

Only the slice's present lease holder may write here; the locks on batch and slice rows make it take turns with reap.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

from penstock.domain.work.suspicion import GUILTY_DEATHS

_NOTE = text("""
    -- Before suspects are sent: should worker and engine die together now, the reap finds here what was in flight.
    with held as (
        select id from slices where id = :slice and state = 'running' and lease = :lease for no key update)
    insert into suspects (slice, line, deaths, trial)
    select id, line, 1, :lease from held, unnest(cast(:lines as int[])) as line
    on conflict (slice, line) do update set trial = excluded.trial
    returning line""")

_CHARGE = text("""
    -- An engine died with these lines in flight. The slice's row first, as in a note: else the two can wait for each
    -- other, should a note whose connection broke still be under way.
    with held as (
        select id from slices where id = :slice and state = 'running' and lease = :lease for no key update)
    insert into suspects (slice, line, deaths)
    select id, line, 1 from held, unnest(cast(:lines as int[])) as line
    on conflict (slice, line) do update set deaths = least(:guilty, suspects.deaths + 1), trial = null""")

_NEWEST = text("""
    -- Backwards through the key: what is suspected goes with the pieces of its batch.
    select newest.slice, newest.line, newest.deaths, newest.trial is not null as trying, s.batch, s.tenant, s.model
    from (select * from suspects order by slice desc, line limit :limit) newest join slices s on s.id = newest.slice
    order by newest.slice desc, newest.line""")


@dataclass(frozen=True)
class LineSuspect:
    """A line that was in flight when engines died."""

    batch: str
    tenant: str
    model: str | None
    slice: int
    line: int
    """Its number in the input, from 0."""
    deaths: int
    trying: bool
    """It is being asked with others of its kind."""


def newest(conn: Connection, *, limit: int) -> list[LineSuspect]:
    """Suspects of all tenants, those of the newest slices first."""
    return [LineSuspect(**row._mapping) for row in conn.execute(_NEWEST, {"limit": limit})]


def note(conn: Connection, slice: int, lease: int, lines: list[int]) -> bool:
    """Note that these lines are about to be asked; False if the lease is lost. May be repeated."""
    return conn.execute(_NOTE, {"slice": slice, "lease": lease, "lines": lines}).first() is not None


def charge(conn: Connection, slice: int, lease: int, lines: list[int]) -> None:
    """Count one more death for each of these lines; once, in the transaction that gives the lease back."""
    if lines:
        conn.execute(_CHARGE, {"slice": slice, "lease": lease, "lines": lines, "guilty": GUILTY_DEATHS})
