"""Answer order: a batch's recorded answers, counted in the order in which they were accepted, which never changes.

A segment's id is given before its transaction commits, so a lower id may be seen later than a higher one. Up to the id
that `last_id` told, all are there once the `writers` of a later moment have ended: whoever writes segments holds the
table's lock before it takes an id, and until its rows are seen. Nobody is held up by a reader.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from penstock.domain.work.answer_part import AnswerOrder, AnswerPart, UnansweredPart

_LAST_ID = text("select case when is_called then last_value else 0 end from segments_id_seq")

_WRITERS = text("""
    select virtualtransaction from pg_locks
    where locktype = 'relation' and relation = 'segments'::regclass and mode = 'RowExclusiveLock' and granted
      and database = (select oid from pg_database where datname = current_database())""")

_PAGE = text("""
    -- The sums and the part of the order that is asked for in one look: a sweep that comes between two would shift it.
    -- Slices keep their counts when segments are swept, and go after them, so what is missing is seen.
    with ordered as (
        select g.id, g.blob_key, g.bytes, g.completed + g.failed as lines,
               sum(g.completed + g.failed) over (order by g.id rows unbounded preceding) as upto
        from slices s join segments g on g.slice = s.id
        where s.tenant = :tenant and s.batch = :batch and s.fold is null),
    sums as (
        select coalesce(sum(lines), 0)::int as lines, coalesce(sum(completed + failed), 0)::int as recorded,
               (select coalesce(max(upto), 0)::int from ordered) as kept,
               (select coalesce(max(upto), 0)::int from ordered where id <= :last_id) as settled
        from slices where tenant = :tenant and batch = :batch and fold is null)
    select sums.lines as all_lines, sums.recorded, sums.kept, sums.settled, part.*
    from sums left join (
        select blob_key, bytes, greatest(0, :after - (upto - lines))::int as first,
               least(lines, :until - (upto - lines))::int as stop, id
        from ordered where id <= :last_id and upto > :after and upto - lines < :until) part on true
    order by part.id""")

_UNANSWERED = text("""
    -- Of a batch that has ended: slice by slice, so in the plan's order, what no segment names.
    select id, plan_offset, plan_bytes, recorded,
           greatest(0, :after - (upto - missing))::int as first, least(missing, :until - (upto - missing))::int as stop
    from (select id, plan_offset, plan_bytes, completed + failed as recorded, lines - completed - failed as missing,
                 sum(lines - completed - failed) over (order by id rows unbounded preceding) as upto
          from slices
          where tenant = :tenant and batch = :batch and fold is null and completed + failed < lines) short
    where upto > :after and upto - missing < :until
    order by id""")

_RECORDED_LINES = text("""
    select line from slices s join segments g on g.slice = s.id, unnest(g.lines) as line
    where s.tenant = :tenant and s.id = :slice""")


def last_id(conn: Connection) -> int:
    """The highest id that any segment has by now, whether it is seen or not."""
    return int(conn.execute(_LAST_ID).scalar_one())


def writers(conn: Connection) -> frozenset[str]:
    """The transactions that may have taken ids of segments, and are not seen yet."""
    return frozenset(row.virtualtransaction for row in conn.execute(_WRITERS))


def page(conn: Connection, tenant: str, batch: str, *, last_id: int, after: int, limit: int) -> AnswerOrder:
    """At most `limit` recorded answers behind the first `after`, of segments up to `last_id`."""
    values = {"tenant": tenant, "batch": batch, "last_id": last_id, "after": after, "until": after + limit}
    rows = conn.execute(_PAGE, values).all()
    parts = [AnswerPart(row.blob_key, row.bytes, row.first, row.stop) for row in rows if row.id is not None]
    return AnswerOrder(rows[0].all_lines, rows[0].recorded, rows[0].kept, rows[0].settled, parts)


def unanswered(conn: Connection, tenant: str, batch: str, *, after: int, limit: int) -> list[UnansweredPart]:
    """At most `limit` lines that an ended batch has no answer of, behind the first `after` of those."""
    values = {"tenant": tenant, "batch": batch, "after": after, "until": after + limit}
    return [
        UnansweredPart(row.id, row.plan_offset, row.plan_bytes, row.recorded, row.first, row.stop)
        for row in conn.execute(_UNANSWERED, values)
    ]


def recorded_lines(conn: Connection, tenant: str, slice: int) -> Sequence[int]:
    """The numbers of the lines of a slice that were recorded."""
    return conn.execute(_RECORDED_LINES, {"tenant": tenant, "slice": slice}).scalars().all()
