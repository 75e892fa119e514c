"""First expectations: rows that say when open batches were first expected to have their answers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, text

from penstock.store.batches import outlooks
from penstock.store.batches.outlooks import BatchesSeen

MOST: Final = 100
"""Batches that are looked at at once."""

_UNSAID = outlooks.statement("""
    -- Young ones only: one that nobody can say anything of is not looked at for ever.
    where b.state = 'in_progress' and b.finish_as is null and not b.inline
      and b.in_progress_at > clock_timestamp() - :young
      and not exists (select from first_expectations f where f.batch = b.id)
    order by b.created_at desc, b.id desc limit :most""")
_SAY = text("""
    -- Another keeper may have said it already, and the batch may be gone.
    insert into first_expectations (batch, said_at, expected_at)
    select b.id, :said_at, given.expected_at
    from unnest(cast(:ids as text[]), cast(:times as timestamptz[])) as given(id, expected_at)
    join batches b on b.id = given.id and b.state = 'in_progress'
    on conflict do nothing""")


def unsaid(conn: Connection, *, young: timedelta, gone: timedelta) -> BatchesSeen:
    """Batches that began to be asked less than `young` ago and have none, with what an outlook needs."""
    return outlooks.look(conn, _UNSAID, {"young": young, "most": MOST}, gone=gone, outlook=True)


def say(conn: Connection, said_at: datetime, expected: Mapping[str, datetime]) -> int:
    """Keep when these batches are expected; how many were not before."""
    values = {"said_at": said_at, "ids": list(expected), "times": list(expected.values())}
    return conn.execute(_SAY, values).rowcount
