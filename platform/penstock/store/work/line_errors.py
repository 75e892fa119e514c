"""Line errors: how many of a batch's lines failed in which way: by slice while it runs, of the whole once it ended."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection, text

from penstock.domain.work.error_group import MOST_GROUPS, ErrorGroup

_KEEP = text("update batches set line_errors = cast(:groups as jsonb) where id = :batch")
_DROP = text("delete from slice_errors e using slices s where s.batch = :batch and e.slice = s.id")
_OF_BATCH = text("""
    -- A row a group and slice: what segments hold was counted when they were recorded.
    select status, code, lines, first_line, message
    from batches b cross join lateral jsonb_to_recordset(b.line_errors)
        as g(status int, code text, lines int, first_line int, message text)
    where b.tenant = :tenant and b.id = :batch and b.line_errors is not null
    union all
    (select e.status, e.code, sum(e.lines)::int, min(e.first_line), (array_agg(e.message order by e.first_line))[1]
     from slices s join slice_errors e on e.slice = s.id
     where s.tenant = :tenant and s.batch = :batch and s.fold is null
     group by e.status, e.code order by 3 desc, 1, 2 limit :most)""")
_FAILED = text("""
    select case when b.state in ('completed', 'cancelled', 'expired', 'failed') then b.failed else (
        select coalesce(sum(failed), 0) from slices where tenant = b.tenant and batch = b.id and fold is null) end
    from batches b where b.tenant = :tenant and b.id = :batch""")


def keep(conn: Connection, batch: str, groups: Sequence[ErrorGroup]) -> None:
    """Keep the groups of all lines of a batch that is about to end, in place of those of its slices."""
    conn.execute(_KEEP, {"batch": batch, "groups": json.dumps([one.as_json() for one in groups])})
    conn.execute(_DROP, {"batch": batch})


def of_batch(conn: Connection, tenant: str, batch: str) -> list[ErrorGroup]:
    """The groups of the lines that failed by now, largest first; the largest ones if there are too many."""
    rows = conn.execute(_OF_BATCH, {"tenant": tenant, "batch": batch, "most": MOST_GROUPS})
    groups = [ErrorGroup(**row._mapping) for row in rows]
    return sorted(groups, key=lambda one: (-one.lines, one.status, one.code))


def failed(conn: Connection, tenant: str, batch: str) -> int:
    """How many lines of a batch failed by now."""
    return int(conn.execute(_FAILED, {"tenant": tenant, "batch": batch}).scalar_one())
