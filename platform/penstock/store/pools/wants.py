"""Wants: waiting calls of versions that are not awake, by the API process that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

LIVE: Final = timedelta(seconds=5)
"""A want that was not repeated for so long is no more: its API process is gone."""

_NOTE = text("""
    -- All that a process wants, and nothing else of it.
    with gone as (
        delete from pool_wants where process = :process and queue <> all(cast(:queues as text[])))
    insert into pool_wants (queue, process, since, seen_at)
    select w.queue, :process, clock_timestamp() - make_interval(secs => w.seconds), clock_timestamp()
    from unnest(cast(:queues as text[]), cast(:seconds as float8[])) as w(queue, seconds)
    join models m on m.name = w.queue
    on conflict (queue, process) do update set since = excluded.since, seen_at = excluded.seen_at""")
_FORGET = text("delete from pool_wants where seen_at < clock_timestamp() - interval '1 minute'")


def note(conn: Connection, process: UUID, waited: Mapping[str, float]) -> None:
    """Say what a process wants: seconds that its oldest waiting call has waited, by queue."""
    values = {"process": process, "queues": list(waited), "seconds": list(waited.values())}
    conn.execute(_NOTE, values)


def forget(conn: Connection) -> None:
    """Delete the wants of processes that are gone."""
    conn.execute(_FORGET)
