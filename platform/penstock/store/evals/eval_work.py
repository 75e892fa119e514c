"""Work on runs and comparisons: who holds it, and until when.

A lease is in the row itself: a number that only ever grows, and a time by the database's clock. Whoever holds it
prolongs it as the work goes on. A holder that falls silent needs no reaping: its time is over, and whoever comes next
has a greater number.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, text

from penstock.domain.evals.comparison import COMPARISON_PREFIX
from penstock.domain.evals.run import RUN_PREFIX, EvalWork

_TABLES: Final = {RUN_PREFIX: "eval_runs", COMPARISON_PREFIX: "eval_comparisons"}
_DUE: Final = {
    "eval_runs": "state in ('preparing', 'scoring')",
    "eval_comparisons": "state = 'comparing'",
}
_FREE: Final = "(lease_until is null or lease_until < clock_timestamp())"

_CLAIM = {
    table: text(f"""
    update {table} set lease = nextval('eval_leases'), lease_until = clock_timestamp() + :ttl, attempts = attempts + 1
    where id = (select id from {table} where id = :id and {due} and {_FREE} for no key update skip locked)
    returning id, lease, attempts""")
    for table, due in _DUE.items()
}
_PROLONG = {
    table: text(f"""
    update {table} set lease_until = clock_timestamp() + :ttl{", scored = :scored" if table == "eval_runs" else ""}
    where id = :id and lease = :lease
    returning id""")
    for table in _DUE
}
_RELEASE = {
    table: text(f"""
    -- Free again, to be hinted a while later; what a server that was away kept from its end was no attempt that counts.
    update {table} set lease = null, lease_until = null, hinted_at = clock_timestamp(),
           attempts = attempts - case when :counts then 0 else 1 end
    where id = :id and lease = :lease""")
    for table in _DUE
}
_WAITING = text(" union all ".join(f"""
    (select id, created_at from {table} where {due} and {_FREE} order by created_at limit 1)"""
    for table, due in _DUE.items()) + " order by created_at limit 1")  # fmt: skip
_UNHINTED = [
    text(f"""
    -- What nobody holds and what was not hinted lately.
    update {table} set hinted_at = clock_timestamp()
    where id = any(array(
        select id from {table}
        where {due} and {_FREE} and (hinted_at is null or hinted_at < clock_timestamp() - :again)
        order by created_at limit :limit for no key update skip locked))
    returning id""")
    for table, due in _DUE.items()
]


def table(id: str) -> str | None:
    """Where an id's row would be; None for what is none of ours."""
    return next((table for prefix, table in _TABLES.items() if id.startswith(prefix)), None)


def claim(conn: Connection, id: str, *, ttl: timedelta) -> EvalWork | None:
    """Take a run or comparison; None if it is not free, or not due."""
    where = table(id)
    row = conn.execute(_CLAIM[where], {"id": id, "ttl": ttl}).first() if where else None
    return EvalWork(row.id, row.lease, row.attempts) if row else None


def prolong(conn: Connection, work: EvalWork, *, ttl: timedelta, scored: int) -> bool:
    """Hold it for another while, and say how many lines are scored; False if it is somebody else's, or over."""
    values = {"id": work.id, "lease": work.lease, "ttl": ttl, "scored": scored}
    return conn.execute(_PROLONG[table(work.id) or ""], values).first() is not None


def release(conn: Connection, work: EvalWork, *, counts: bool) -> None:
    """Give it back; `counts`: this was an attempt. Nothing happens if it is somebody else's."""
    conn.execute(_RELEASE[table(work.id) or ""], {"id": work.id, "lease": work.lease, "counts": counts})


def waiting(conn: Connection) -> str | None:
    """The oldest that waits for an io worker."""
    row = conn.execute(_WAITING).first()
    return row.id if row else None


def unhinted(conn: Connection, *, again: timedelta, limit: int) -> list[str]:
    """Those that wait and were not hinted lately; they count as hinted from now on."""
    return [row.id for one in _UNHINTED for row in conn.execute(one, {"again": again, "limit": limit})]
