"""Segments: recorded answers. A row is accepted only from the slice's present lease holder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, text

from penstock.domain.work.segment import Piece, Segment

_FLUSH = text("""
    -- Accept segments only from their slices' present lease holders; the locks make reap and flush take turns.
    -- What they cost is decided here, by the price of this moment: money is counted exactly as often as its lines.
    -- A blob's intent goes in the same statement: without one (or doomed) the blob may be deleted at any time.
    with given as (
        select * from unnest(
            cast(:slices as bigint[]), cast(:leases as bigint[]), cast(:seqs as int[]), cast(:blob_keys as text[]),
            cast(:data as bytea[]), cast(:bytes as int[]), cast(:lines as text[]), cast(:failed_lines as text[]),
            cast(:input_tokens as bigint[]), cast(:cached_tokens as bigint[]), cast(:output_tokens as bigint[]),
            cast(:reasoning_tokens as bigint[]), cast(:reused_output_tokens as bigint[]), cast(:empty_lines as text[]),
            cast(:gpu_microseconds as bigint[]), cast(:errors as text[]), cast(:equal_input_tokens as bigint[]),
            cast(:shared_input_tokens as bigint[]), cast(:shared_output_tokens as bigint[]))
        as g(slice, lease, seq, blob_key, data, bytes, lines, failed_lines,
             input_tokens, cached_tokens, output_tokens, reasoning_tokens, reused_output_tokens, empty_lines,
             gpu_microseconds, errors, equal_input_tokens, shared_input_tokens, shared_output_tokens)),
    held as (
        select s.id, s.model, s.fold is null and s.inline is null as tells_errors
        from slices s join given g on g.slice = s.id
        where s.id = any(cast(:slices as bigint[])) and s.state = 'running' and s.lease = g.lease
        order by s.id for no key update of s),
    taken as (
        delete from intents i using given g
        where i.blob_key = g.blob_key and i.doomed_at is null and g.slice in (select id from held)
        returning i.blob_key),
    new as (
        insert into segments (slice, lease, seq, blob_key, data, bytes, lines, failed_lines, empty_lines,
                              completed, failed, input_tokens, cached_tokens, output_tokens, reasoning_tokens,
                              reused_output_tokens, price, gpu_microseconds, token_cost, gpu_cost)
        select g.slice, g.lease, g.seq, g.blob_key, g.data, g.bytes, cast(g.lines as int[]),
               cast(g.failed_lines as int[]), cast(g.empty_lines as int[]),
               cardinality(cast(g.lines as int[])) - cardinality(cast(g.failed_lines as int[])),
               cardinality(cast(g.failed_lines as int[])),
               g.input_tokens, g.cached_tokens, g.output_tokens, g.reasoning_tokens, g.reused_output_tokens,
               p.id, g.gpu_microseconds,
               coalesce(greatest(g.input_tokens - g.cached_tokens, 0)::numeric * p.input
                        + g.cached_tokens::numeric * p.cached_input
                        + (g.output_tokens - g.reused_output_tokens)::numeric * p.output, 0),
               coalesce(g.gpu_microseconds::numeric * p.gpu, 0)
        from given g join held on held.id = g.slice
        left join lateral (
            select * from prices
            where prices.model = held.model and valid_from <= now() order by valid_from desc limit 1) p on true
        where g.blob_key is null or g.blob_key in (select blob_key from taken)
        on conflict (slice, lease, seq) do nothing
        returning slice, lease, completed, failed, empty_lines, input_tokens, cached_tokens, output_tokens,
                  reasoning_tokens, reused_output_tokens, gpu_microseconds, token_cost, gpu_cost, price),
    grouped as (
        -- Not of members, whose folds tell of them, nor of small jobs, whose lines are all in their rows.
        insert into slice_errors as e (slice, status, code, lines, first_line, message)
        select new.slice, x.status, x.code, x.lines, x.first_line, x.message
        from new join held on held.id = new.slice join given g on (g.slice, g.lease) = (new.slice, new.lease),
            jsonb_to_recordset(cast(g.errors as jsonb))
                as x(status int, code text, lines int, first_line int, message text)
        where held.tells_errors
        on conflict (slice, status, code) do update set lines = e.lines + excluded.lines,
            message = case when excluded.first_line < e.first_line then excluded.message else e.message end,
            first_line = least(e.first_line, excluded.first_line)),
    counted as (
        update slices s set completed = s.completed + new.completed, failed = s.failed + new.failed,
            input_tokens = s.input_tokens + new.input_tokens, cached_tokens = s.cached_tokens + new.cached_tokens,
            output_tokens = s.output_tokens + new.output_tokens,
            reasoning_tokens = s.reasoning_tokens + new.reasoning_tokens,
            reused_output_tokens = s.reused_output_tokens + new.reused_output_tokens,
            gpu_microseconds = s.gpu_microseconds + new.gpu_microseconds,
            token_cost = s.token_cost + new.token_cost, gpu_cost = s.gpu_cost + new.gpu_cost,
            equal_input_tokens = s.equal_input_tokens + g.equal_input_tokens,
            shared_input_tokens = s.shared_input_tokens + g.shared_input_tokens,
            shared_output_tokens = s.shared_output_tokens + g.shared_output_tokens,
            prefix_saved = s.prefix_saved + coalesce(
                (g.cached_tokens - g.equal_input_tokens - g.shared_input_tokens)::numeric
                * (p.input - p.cached_input), 0),
            equal_saved = s.equal_saved + coalesce(
                g.equal_input_tokens::numeric * (p.input - p.cached_input)
                + (g.reused_output_tokens - g.shared_output_tokens)::numeric * p.output, 0),
            shared_saved = s.shared_saved + coalesce(
                g.shared_input_tokens::numeric * (p.input - p.cached_input)
                + g.shared_output_tokens::numeric * p.output, 0),
            empty = s.empty + cardinality(new.empty_lines),
            empty_lines = case when new.empty_lines = '{}' then s.empty_lines else array(
                select line from unnest(s.empty_lines || new.empty_lines) as line order by line limit 10) end
        from new join given g on (g.slice, g.lease) = (new.slice, new.lease) left join prices p on p.id = new.price
        where s.id = new.slice)
    select lease from new""")

_FLUSHED = text("""
    -- A statement of its own, so that it sees what the same flush on another connection has committed meanwhile.
    select g.lease from segments g
    join unnest(cast(:slices as bigint[]), cast(:leases as bigint[]), cast(:seqs as int[])) as given(slice, lease, seq)
        on (g.slice, g.lease, g.seq) = (given.slice, given.lease, given.seq)""")

_OF_JOB = text("""
    select s.inline, array(select g.data from segments g where g.slice = s.id order by g.id) as recorded
    from slices s where s.batch = :job order by s.id""")

_BYTES = text("""
    select coalesce(sum(g.bytes), 0)::bigint from segments g join slices s on s.id = g.slice
    where s.batch = :batch and s.fold is null""")

_PAGE = text("""
    -- By slice, and by acceptance within one: both in the order of an index, so a page costs its own rows.
    select g.id, g.slice, g.blob_key, g.data, g.bytes, g.lines, g.failed_lines
    from slices s join segments g on g.slice = s.id
    where s.batch = :batch and s.fold is null and s.id >= :slice and (s.id > :slice or g.id > :after)
    order by s.id, g.id limit :limit""")


def flush(conn: Connection, pieces: Sequence[Piece]) -> set[int]:
    """Record answers, each piece under its lease, and take their blobs' intents back; the leases of those accepted.

    Each piece is of another slice. May be repeated with the same (slice, lease, seq).
    """
    values = {
        "slices": [piece.slice for piece in pieces],
        "leases": [piece.lease for piece in pieces],
        "seqs": [piece.seq for piece in pieces],
        "blob_keys": [piece.blob_key for piece in pieces],
        "data": [piece.data for piece in pieces],
        "bytes": [piece.data_bytes for piece in pieces],
        "lines": [_array(piece.lines) for piece in pieces],
        "failed_lines": [_array(piece.failed_lines) for piece in pieces],
        "input_tokens": [piece.usage.input_tokens for piece in pieces],
        "cached_tokens": [piece.usage.cached_tokens for piece in pieces],
        "output_tokens": [piece.usage.output_tokens for piece in pieces],
        "reasoning_tokens": [piece.usage.reasoning_tokens for piece in pieces],
        "reused_output_tokens": [piece.usage.reused_output_tokens for piece in pieces],
        "equal_input_tokens": [piece.usage.equal_input_tokens for piece in pieces],
        "shared_input_tokens": [piece.usage.shared_input_tokens for piece in pieces],
        "shared_output_tokens": [piece.usage.shared_output_tokens for piece in pieces],
        "gpu_microseconds": [piece.gpu_microseconds for piece in pieces],
        "errors": [json.dumps([one.as_json() for one in piece.errors]) for piece in pieces],
        "empty_lines": [_array(piece.empty_lines) for piece in pieces],
    }
    accepted = {row.lease for row in conn.execute(_FLUSH, values)}
    if len(accepted) < len(pieces):
        accepted |= {row.lease for row in conn.execute(_FLUSHED, values)}
    return accepted


def _array(numbers: Sequence[int]) -> str:
    """Numbers as Postgres writes an array: an array of arrays of unlike lengths is none."""
    return "{" + ",".join(map(str, numbers)) + "}"


def of_job(conn: Connection, job: str) -> tuple[bytes, list[bytes]]:
    """An inline job's framed input lines, and its segments' bytes in the order in which they were accepted."""
    rows = conn.execute(_OF_JOB, {"job": job}).all()
    return b"".join(bytes(row.inline) for row in rows), [bytes(data) for row in rows for data in row.recorded]


def bytes_of_batch(conn: Connection, batch: str) -> int:
    """The bytes of all answers to a batch's lines."""
    return int(conn.execute(_BYTES, {"batch": batch}).scalar_one())


def page(conn: Connection, batch: str, *, after: Segment | None, limit: int) -> list[Segment]:
    """The batch's next segments, slice by slice, each slice's in the order in which they were accepted.

    Not those of an ensemble's members: its folds have the answers.
    """
    place = {"slice": after.slice, "after": after.id} if after else {"slice": 0, "after": 0}
    return [_segment(row) for row in conn.execute(_PAGE, place | {"batch": batch, "limit": limit})]


def _segment(row: Row[Any]) -> Segment:
    data = None if row.data is None else bytes(row.data)
    return Segment(row.id, row.slice, row.blob_key, data, row.bytes, row.lines, frozenset(row.failed_lines))
