"""Segments: recorded answers. A row is accepted only from the slice's present lease holder."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

from penstock.domain.batch import Usage

_FLUSH = text("""
    -- Accept a segment only from the slice's present lease holder; the lock makes reap and flush take turns.
    -- Its blob's intent goes in the same statement: without one (or doomed) the blob may be deleted at any time.
    with held as (
        select id from slices where id = :slice and state = 'running' and lease = :lease for no key update),
    taken as (
        delete from intents
        where blob_key = cast(:blob_key as text) and doomed_at is null and exists (select from held)
        returning blob_key),
    new as (
        insert into segments (slice, lease, seq, blob_key, data, bytes, lines, failed_lines, empty_lines,
                              completed, failed, input_tokens, cached_tokens, output_tokens, reasoning_tokens,
                              reused_output_tokens)
        select id, :lease, :seq, :blob_key, :data, :bytes, cast(:lines as int[]), cast(:failed_lines as int[]),
               cast(:empty_lines as int[]),
               cardinality(cast(:lines as int[])) - cardinality(cast(:failed_lines as int[])),
               cardinality(cast(:failed_lines as int[])),
               :input_tokens, :cached_tokens, :output_tokens, :reasoning_tokens, :reused_output_tokens
        from held
        where cast(:blob_key as text) is null or exists (select from taken)
        on conflict (slice, lease, seq) do nothing
        returning slice, completed, failed, empty_lines, input_tokens, cached_tokens, output_tokens, reasoning_tokens,
                  reused_output_tokens),
    counted as (
        update slices s set completed = s.completed + new.completed, failed = s.failed + new.failed,
            input_tokens = s.input_tokens + new.input_tokens, cached_tokens = s.cached_tokens + new.cached_tokens,
            output_tokens = s.output_tokens + new.output_tokens,
            reasoning_tokens = s.reasoning_tokens + new.reasoning_tokens,
            reused_output_tokens = s.reused_output_tokens + new.reused_output_tokens,
            empty = s.empty + cardinality(new.empty_lines),
            empty_lines = case when new.empty_lines = '{}' then s.empty_lines else array(
                select line from unnest(s.empty_lines || new.empty_lines) as line order by line limit 10) end
        from new where s.id = new.slice)
    select exists (select from new)""")

_FLUSHED = text("""
    -- A statement of its own, so that it sees what the same flush on another connection has committed meanwhile.
    select exists (select from segments where (slice, lease, seq) = (:slice, :lease, :seq))""")

_OF_BATCH = text("""
    select g.id, g.blob_key, g.data, g.bytes, g.lines, g.failed_lines
    from segments g join slices s on s.id = g.slice
    where s.batch = :batch order by g.id""")


@dataclass(frozen=True)
class Segment:
    """An accepted piece of results: where its bytes are, and which lines they hold in that order."""

    id: int
    blob_key: str | None
    data: bytes | None
    bytes: int
    lines: list[int]
    failed_lines: frozenset[int]


def flush(
    conn: Connection,
    slice: int,
    lease: int,
    seq: int,
    *,
    lines: list[int],
    failed_lines: list[int],
    empty_lines: list[int],
    usage: Usage,
    bytes: int,
    blob_key: str | None = None,
    data: bytes | None = None,
) -> bool:
    """Record answers under a lease, and take their blob's intent back; False if the lease or the blob is lost.

    May be repeated with the same (slice, lease, seq).
    """
    values = {
        "slice": slice,
        "lease": lease,
        "seq": seq,
        "lines": lines,
        "failed_lines": failed_lines,
        "empty_lines": empty_lines,
        "bytes": bytes,
        "blob_key": blob_key,
        "data": data,
        "input_tokens": usage.input_tokens,
        "cached_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "reused_output_tokens": usage.reused_output_tokens,
    }
    return conn.execute(_FLUSH, values).scalar_one() or conn.execute(_FLUSHED, values).scalar_one()


def of_batch(conn: Connection, batch: str) -> list[Segment]:
    """The batch's segments in the order in which they were accepted."""
    return [
        Segment(
            row.id,
            row.blob_key,
            None if row.data is None else bytes(row.data),
            row.bytes,
            row.lines,
            frozenset(row.failed_lines),
        )
        for row in conn.execute(_OF_BATCH, {"batch": batch})
    ]
