"""Outcomes: what became of the requests of versions: of lines by their slices, of calls by counts of each minute."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from penstock.domain.models.guard import Outcomes
from penstock.domain.models.version import Version

_ADD_CALLS = text("""
    insert into version_calls as c (queue, minute, calls, errors, slow)
    select queue, date_trunc('minute', clock_timestamp()), calls, errors, slow
    from unnest(cast(:queues as text[]), cast(:calls as int[]), cast(:errors as int[]), cast(:slow as int[]))
        as given(queue, calls, errors, slow)
    on conflict (queue, minute) do update set
        calls = c.calls + excluded.calls, errors = c.errors + excluded.errors, slow = c.slow + excluded.slow""")
_CALLS = text("""
    -- The minute in which it began is left out: it holds calls from before.
    select queue, sum(calls)::int as calls, sum(errors)::int as errors, sum(slow)::int as slow from version_calls
    where queue = any(cast(:queues as text[])) and minute >= cast(:since as timestamptz) group by queue""")
_LINES = text("""
    -- An adapter's lines are in its base's queue.
    select coalesce(adapter, model) as queue,
           sum(completed + failed)::int as lines, sum(failed)::int as failed, sum(empty)::int as empty
    from slices
    where model = any(cast(:served_as as text[])) and state = 'done' and done_at > :since
      and coalesce(adapter, model) = any(cast(:queues as text[])) group by 1""")
_FORGET = text("delete from version_calls where minute < clock_timestamp() - interval '7 days'")


def add_calls(conn: Connection, counts: dict[str, tuple[int, int, int]]) -> None:
    """Add calls, errors and slow ones by queue to the present minute."""
    calls, errors, slow = (list(column) for column in zip(*counts.values(), strict=True))
    conn.execute(_ADD_CALLS, {"queues": list(counts), "calls": calls, "errors": errors, "slow": slow})


def since(conn: Connection, found: Sequence[Version], at: datetime) -> dict[str, Outcomes]:
    """What became of the requests of these versions since then, by their queues."""
    queues, served_as = [one.queue for one in found], [one.served_as for one in found]
    values = {"queues": queues, "served_as": served_as, "since": at}
    counted = dict.fromkeys(queues, Outcomes())
    for row in conn.execute(_LINES, values):
        counted[row.queue] += Outcomes(lines=row.lines, errors=row.failed, empty=row.empty)
    for row in conn.execute(_CALLS, values):
        counted[row.queue] += Outcomes(calls=row.calls, errors=row.errors, slow=row.slow)
    return counted


def forget(conn: Connection) -> int:
    """Delete counts of a week ago."""
    return conn.execute(_FORGET).rowcount
