"""Invariants: what holds in the whole database after every transaction, whoever did what at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from sqlalchemy import Connection, text

# Each query finds what must never be.
BROKEN = {
    "a slice is running if and only if it names an open lease of its own": """
        select s.id, s.state, s.lease from slices s
        where (s.state = 'running') <> exists (
            select from leases l where l.id = s.lease and l.slice = s.id and l.closed_at is null)""",
    "an open lease of a slice is the slice's": """
        select l.id from leases l join slices s on s.id = l.slice
        where l.closed_at is null and s.lease is distinct from l.id""",
    "an open lease of a validation or assembly is its batch's, which is in that state": """
        select l.id from leases l join batches b on b.id = l.batch
        where l.closed_at is null and l.kind <> 'slice'
          and (b.lease is distinct from l.id
               or b.state <> case l.kind when 'validate' then 'validating' else 'finalizing' end)""",
    "a batch that names a lease names an open one of its own": """
        select b.id from batches b
        where b.lease is not null and not exists (
            select from leases l
            where l.id = b.lease and l.batch = b.id and l.kind <> 'slice' and l.closed_at is null)""",
    "the sums of a tenant's files are those of its files": """
        select t.id from tenants t
        where (select coalesce(sum(s.files), 0) from file_sums s where s.tenant = t.id)
              <> (select count(*) from files f where f.tenant = t.id)
           or (select coalesce(sum(s.bytes), 0) from file_sums s where s.tenant = t.id)
              <> (select coalesce(sum(f.bytes), 0) from files f where f.tenant = t.id)""",
    "no line is in two segments": """
        select g.slice, line from segments g, unnest(g.lines) as line group by 1, 2 having count(*) > 1""",
    "tokens never fall in the order of acceptance": """
        select a.id, b.id from segments a join segments b on b.slice = a.slice and b.id > a.id and b.lease < a.lease""",
    "counts and usage are the sums over the segments": """
        select s.id from slices s
        left join lateral (
            select coalesce(sum(completed), 0) as completed, coalesce(sum(failed), 0) as failed,
                   coalesce(sum(input_tokens), 0) as input_tokens, coalesce(sum(cached_tokens), 0) as cached_tokens,
                   coalesce(sum(output_tokens), 0) as output_tokens,
                   coalesce(sum(reasoning_tokens), 0) as reasoning_tokens,
                   coalesce(sum(reused_output_tokens), 0) as reused_output_tokens,
                   coalesce(sum(cardinality(empty_lines)), 0) as empty,
                   coalesce(sum(gpu_microseconds), 0) as gpu_microseconds,
                   coalesce(sum(token_cost), 0) as token_cost, coalesce(sum(gpu_cost), 0) as gpu_cost
            from segments g where g.slice = s.id) sums on true
        where (s.completed, s.failed, s.input_tokens, s.cached_tokens, s.output_tokens, s.reasoning_tokens,
               s.reused_output_tokens, s.empty, s.gpu_microseconds, s.token_cost, s.gpu_cost)
           is distinct from (sums.completed, sums.failed, sums.input_tokens, sums.cached_tokens, sums.output_tokens,
                             sums.reasoning_tokens, sums.reused_output_tokens, sums.empty,
                             sums.gpu_microseconds, sums.token_cost, sums.gpu_cost)
          and not exists (  -- its segments were swept
              select from batches b
              where b.id = s.batch and not b.inline and b.state in ('completed', 'cancelled', 'expired', 'failed')
                and not exists (select from leftovers o where o.batch = b.id))""",
    "a segment costs what its price says, and one without a price nothing": """
        select g.id from segments g left join prices p on p.id = g.price
        where (g.token_cost, g.gpu_cost) is distinct from (
            coalesce((g.input_tokens - g.cached_tokens)::numeric * p.input + g.cached_tokens::numeric * p.cached_input
                     + (g.output_tokens - g.reused_output_tokens)::numeric * p.output, 0),
            coalesce(g.gpu_microseconds::numeric * p.gpu, 0))""",
    "a segment holds lines of its slice alone, accepted under a lease of its slice": """
        select g.id from segments g join slices s on s.id = g.slice join leases l on l.id = g.lease
        where l.slice is distinct from g.slice
           or exists (select from unnest(g.lines) as line where line not between s.first_line and s.last_line)""",
    "nothing is open in a batch that is finalizing or has ended": """
        select s.id from slices s join batches b on b.id = s.batch
        where b.state in ('finalizing', 'completed', 'cancelled', 'expired', 'failed')
          and s.state in ('waiting', 'queued', 'ready', 'running')""",
    "a slice is settled with all its lines, unless its batch is closing": """
        select s.id from slices s join batches b on b.id = s.batch
        where s.state = 'done' and s.completed + s.failed < s.lines and b.finish_as is null""",
    "a slice of a batch that is not closing is not dropped": """
        -- A member of an ensemble is, that nobody serves or that is not needed.
        select s.id from slices s join batches b on b.id = s.batch
        where s.state = 'dropped' and b.finish_as is null and s.fold is null""",
    "a fold that waits is due if and only if no member of it is at work": """
        select f.id, f.due from slices f
        where f.ensemble is not null and f.member is null and f.state = 'waiting'
          and f.due = exists (
              select from slices s where s.fold = f.id and s.state in ('queued', 'ready', 'running'))""",
    "a fold is settled once no member of it is at work or waits": """
        select s.id from slices s join slices f on f.id = s.fold
        where f.state in ('running', 'done') and s.state in ('queued', 'ready', 'running')
           or f.state = 'done' and s.state = 'waiting'""",
    "a later member is asked those lines that were picked, and no others": """
        select g.id from segments g join slices s on s.id = g.slice
        where s.picked is not null
          and (not g.lines <@ s.picked or cardinality(s.picked) <> s.lines)""",
    "a line that is folded was answered by a member, or each that was asked has failed it": """
        select f.id, line from slices f join segments g on g.slice = f.id, unnest(g.lines) as line
        where f.ensemble is not null and f.member is null and not line = any(g.failed_lines)
          and not exists (
              select from slices s join segments m on m.slice = s.id
              where s.fold = f.id and line = any(m.lines) and not line = any(m.failed_lines))""",
    "what is open of a batch is held if and only if it is paused": """
        select s.id from slices s join batches b on b.id = s.batch
        where s.state in ('waiting', 'queued', 'ready', 'running') and b.finish_as is null
          and s.held <> (b.state = 'paused')""",
    "what is open of a batch has its lane": """
        select s.id from slices s join batches b on b.id = s.batch
        where s.state in ('waiting', 'queued', 'ready', 'running') and b.finish_as is null and s.lane <> b.lane""",
    "an ended batch's counts and usage are frozen as its slices' sums": """
        select b.id from batches b
        left join lateral (
            select coalesce(sum(s.completed) filter (where s.fold is null), 0) as completed,
                   coalesce(sum(s.input_tokens), 0) as input_tokens,
                   coalesce(sum(s.output_tokens), 0) as output_tokens,
                   coalesce(sum(s.empty) filter (where s.fold is null), 0) as empty,
                   coalesce(sum(s.gpu_microseconds), 0) as gpu_microseconds,
                   coalesce(sum(s.token_cost), 0) as token_cost, coalesce(sum(s.gpu_cost), 0) as gpu_cost
            from slices s where s.batch = b.id) sums on true
        where b.state in ('completed', 'cancelled', 'expired', 'failed')
          and (b.completed, b.failed, b.input_tokens, b.output_tokens, b.empty, b.gpu_microseconds, b.token_cost,
               b.gpu_cost)
              is distinct from (sums.completed, b.total - sums.completed, sums.input_tokens, sums.output_tokens,
                                sums.empty, sums.gpu_microseconds, sums.token_cost, sums.gpu_cost)""",
    "a batch that is not validated has no slices, any other has its lines in slices": """
        select b.id from batches b
        where b.total <> (select coalesce(sum(s.lines), 0) from slices s where s.batch = b.id and s.fold is null)
           or (b.state = 'validating' and b.total > 0)""",
    "an ended batch that was planned and not failed shows each line as completed or failed": """
        select b.id from batches b
        where b.state in ('completed', 'cancelled', 'expired', 'failed') and b.completed + b.failed <> b.total""",
    "a batch has its one event if and only if it has ended": """
        select b.id, count(e.id) from batches b left join events e on e.batch = b.id
        group by b.id
        having count(e.id) <> case when b.state in ('completed', 'cancelled', 'expired', 'failed') then 1 else 0 end
            or max(e.type) <> 'batch.' || b.state""",
    "what is owed is an event of its tenant or batch, to an endpoint of that tenant, its own or the batch's": """
        select d.id from deliveries d
        join webhook_endpoints w on w.id = d.endpoint left join events e on e.id = d.event
        where w.tenant <> d.tenant
           or not d.test and ((e.tenant, coalesce(e.batch, e.tenant), e.type)
                              is distinct from (d.tenant, d.object, d.type)
                              or w.batch <> d.object)""",
    "an attempt that is logged was claimed, and a delivery is delivered if and only if its last one was taken": """
        select d.id, a.number from deliveries d
        left join lateral (
            select number, status from delivery_attempts where delivery = d.id order by number desc limit 1) a on true
        where a.number > d.attempts
           or (d.state = 'delivered' and coalesce(a.status, 0) not between 200 and 299)
           or (d.state = 'failed' and a.status between 200 and 299)""",
    "the trail of moves is a chain of legal ones, from the first state to the present one": """
        -- Of a batch that was deleted the trail stays for its time.
        select t.batch, t.slice, t.was, t.becomes
        from (select *, lag(becomes) over (partition by batch, slice order by id) as before,
                     lead(becomes) over (partition by batch, slice order by id) is null as last
              from trail) t
        where t.was is distinct from t.before
           or (t.was is null and t.becomes not in ('validating', 'in_progress', 'queued', 'waiting'))
           or (t.was is not null and not exists (
               select from legal_moves m
               where m.machine = case when t.slice is null then 'batch' else 'slice' end
                 and m.was = t.was and m.becomes = t.becomes))
           or (t.last and exists (select from batches b where b.id = t.batch) and t.becomes is distinct from case
               when t.slice is null then (select state from batches b where b.id = t.batch)
               else (select state from slices s where s.id = t.slice and s.batch = t.batch) end)""",
    "every batch and every slice has a trail": """
        select b.id from batches b where not exists (select from trail t where t.batch = b.id and t.slice is null)
        union all
        select s.batch from slices s
        where not exists (select from trail t where t.batch = s.batch and t.slice = s.id)""",
    "a blob is published or intended, never both": """
        select i.blob_key from intents i
        where exists (select from files f where i.blob_key in (f.blob_key, f.index_key))
           or exists (select from segments g where g.blob_key = i.blob_key)
           or exists (
               select from batches b
               where b.plan_key = i.blob_key
                 and (i.doomed_at is null or b.state not in ('completed', 'cancelled', 'expired', 'failed')))""",
}


STATEMENT = "\nunion all\n".join(
    f"select {number} as number, cast(to_jsonb(q{number}) as text) as what from ({query}) q{number}"
    for number, query in enumerate(BROKEN.values())
)


def check(conn: Connection) -> None:
    """Raise unless every invariant holds in the whole database, as one statement sees it."""
    _none([(row.number, row.what) for row in conn.execute(_ALL)])


def check_quickly(conn: psycopg.Connection[Any]) -> None:
    """The same on a connection that keeps the statement planned."""
    _none(conn.execute(STATEMENT.encode(), prepare=True).fetchall())


def _none(found: Sequence[tuple[int, str]]) -> None:
    broken = [f"{list(BROKEN)[number]}: {what}" for number, what in found]
    assert not broken, "broken: " + "\n".join(broken)


_ALL = text(STATEMENT)
