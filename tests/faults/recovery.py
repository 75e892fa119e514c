"""Recovery: how long what a killed process held was nobody's to work on."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import psycopg

_RECOVERY = """
    select extract(epoch from freed.at) - %(at)s as freed,
           (select extract(epoch from min(n.at)) - %(at)s from trail n
            where n.slice = l.slice and n.id > freed.id and n.becomes = 'running') as again
    from leases l join trail freed on freed.slice = l.slice and freed.lease = l.id and freed.was = 'running'
    where l.holder = %(holder)s and freed.becomes = 'queued'
      and extract(epoch from l.opened_at) < %(at)s and extract(epoch from freed.at) > %(at)s"""


def recoveries(database_url: str, kills: Sequence[tuple[UUID, float]]) -> tuple[list[float], list[float]]:
    """Seconds from each kill of a process (its holder id, unix time) until what it held was free, and ran again."""
    freed, again = [], []
    with psycopg.connect(database_url, autocommit=True) as database:
        for holder, at in kills:
            for row in database.execute(_RECOVERY.encode(), {"holder": holder, "at": at}):
                freed.append(float(row[0]))
                again += [] if row[1] is None else [float(row[1])]
    return freed, again
