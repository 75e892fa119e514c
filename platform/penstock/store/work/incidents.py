"""Incidents: rare things that went wrong, each with its time and what it was about. They go after a week."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, text

KEPT: Final = timedelta(days=7)

_ADD = text("insert into incidents (name, times, about) values (:name, :times, left(:about, 200))")
_NEWEST = text("""
    -- The newest few of each, from the end of its part of the index.
    select one.id, one.at, one.name, one.times, one.about
    from unnest(cast(:names as text[])) as asked(name)
    cross join lateral (
        select * from incidents i where i.name = asked.name order by i.id desc limit :limit) one
    order by one.id desc""")
_DELETE_OLD = text("""
    -- By id: they are as good as ordered by time.
    delete from incidents where id = any(array(select id from incidents order by id limit :limit))
        and at < clock_timestamp() - :after""")


@dataclass(frozen=True)
class Incident:
    """Something went wrong `times` times at once."""

    id: int
    at: datetime
    name: str
    """As it is counted: see domain/counted.py."""
    times: int
    about: str
    """The id of a batch, a worker or a delivery; empty if it is not known."""


def add(conn: Connection, name: str, times: int, about: str) -> None:
    """Note an incident."""
    conn.execute(_ADD, {"name": name, "times": times, "about": about})


def newest(conn: Connection, names: Sequence[str], *, limit: int) -> list[Incident]:
    """The newest so many of each of these names, newest first."""
    return [Incident(**row._mapping) for row in conn.execute(_NEWEST, {"names": list(names), "limit": limit})]


def delete_old(conn: Connection, *, limit: int) -> int:
    """Delete the oldest, if they are older than they are kept."""
    return conn.execute(_DELETE_OLD, {"after": KEPT, "limit": limit}).rowcount
