"""Counts: how often rare things happened on the whole platform; they outlive processes, and a scrape sums nothing."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, text

from penstock.domain.counted import COUNTED, HISTOGRAMS, INCIDENTS, LABELLED
from penstock.store.work import incidents

_ADD = text("""
    insert into counts (name, value) values (:name, :by)
    on conflict (name) do update set value = counts.value + excluded.value""")
_ADD_ALL = text("""
    -- In the order of names, so that two of them never wait for each other.
    insert into counts (name, value)
    select name, value from unnest(cast(:names as text[]), cast(:values as bigint[])) as given(name, value)
    order by name
    on conflict (name) do update set value = counts.value + excluded.value""")
_ALL = text("select name, value from counts")


def add(conn: Connection, name: str, by: int = 1, about: str = "") -> None:
    """Count something (`NAME`, or `NAME/VALUE` of one that has a label); of an incident its time and `about` are kept.

    It is the last statement of its transaction, since the row stays locked until the commit.
    """
    base, _, value = name.partition("/")
    assert base in COUNTED and bool(value) is (base in LABELLED), name  # noqa: PT018 # no test
    if by:
        if name in INCIDENTS:
            incidents.add(conn, name, by, about)
        conn.execute(_ADD, {"name": name, "by": by})


def add_all(conn: Connection, by: Mapping[str, int]) -> None:
    """Count several things that are no incidents, as the only counts and the last statement of a transaction."""
    for name in by:
        assert name.partition("/")[0] in COUNTED.keys() | HISTOGRAMS.keys(), name
    if by:
        conn.execute(_ADD_ALL, {"names": list(by), "values": list(by.values())})


def read(conn: Connection) -> dict[str, int]:
    """Everything that was counted; what never happened is 0."""
    return dict.fromkeys(COUNTED.keys() - LABELLED.keys(), 0) | {row.name: row.value for row in conn.execute(_ALL)}
