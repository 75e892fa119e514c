"""Line places: in which segments the lines of a batch are that have no files yet.

A statement reads the numbers in the batch's own segments: it costs what the batch has, not what the platform has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class LinePlace:
    """A recorded line, and its segment."""

    number: int
    failed: bool
    segment: int
    blob_key: str | None
    bytes: int


_SELECT: Final = """
    select n.line as number, n.line = any(g.failed_lines) as failed, g.id as segment, g.blob_key, g.bytes
    from slices s join segments g on g.slice = s.id cross join lateral unnest({lines}) as n(line)
    where s.tenant = :tenant and s.batch = :batch and s.fold is null and {where}
    order by n.line limit :limit"""
_ALL = text(_SELECT.format(lines="g.lines", where="n.line > :after and n.line <= :until"))
_FAILED = text(_SELECT.format(lines="g.failed_lines", where="g.failed > 0 and n.line > :after and n.line <= :until"))
_ANSWERED = text(
    _SELECT.format(lines="g.lines", where="n.line > :after and n.line <= :until and not n.line = any(g.failed_lines)")
)
_THESE = text(_SELECT.format(lines="g.lines", where="n.line = any(cast(:numbers as int[]))"))
_LAST = text("""
    select coalesce(max(last_line), 0) from slices where tenant = :tenant and batch = :batch and fold is null""")


def recorded(
    conn: Connection, tenant: str, batch: str, *, after: int, until: int, limit: int, failed: bool | None = None
) -> list[LinePlace]:
    """The next recorded lines behind `after`, up to `until`, by number: all, or only failed or answered ones."""
    statement = _ALL if failed is None else _FAILED if failed else _ANSWERED
    values = {"tenant": tenant, "batch": batch, "after": after, "until": until, "limit": limit}
    return [LinePlace(**row._mapping) for row in conn.execute(statement, values)]


def these(conn: Connection, tenant: str, batch: str, numbers: Sequence[int]) -> list[LinePlace]:
    """Those of these lines that are recorded."""
    values = {"tenant": tenant, "batch": batch, "numbers": list(numbers), "limit": len(numbers)}
    return [LinePlace(**row._mapping) for row in conn.execute(_THESE, values)]


def last_line(conn: Connection, tenant: str, batch: str) -> int:
    """The highest number of a line; 0 of a batch that is not planned."""
    return int(conn.execute(_LAST, {"tenant": tenant, "batch": batch}).scalar_one())
