"""Sweeping: what is left over and has grown old, oldest first, some rows at a time.

Every statement may run twice and from several keepers at once: rows that another has locked are passed over. Arrays
instead of joins, since a join with a limit makes the planner read the whole table.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, text

from penstock.domain.accounts.usage_report import MOST_KEYS

_DOOM_UNFINISHED = text("""
    -- Blobs that nobody published for so long. Deleted some time later only: what their writer still puts goes too.
    update intents set doomed_at = clock_timestamp() + :late
    where blob_key = any(array(
        select blob_key from intents where doomed_at is null and created_at < clock_timestamp() - :after
        order by created_at limit :limit for update skip locked))""")

_DUE = text("""
    -- Whoever takes them has a while to delete them; what can't be deleted comes again, behind all others.
    update intents set doomed_at = clock_timestamp() + :again
    where blob_key = any(array(
        select blob_key from intents where doomed_at <= clock_timestamp()
        order by doomed_at limit :limit for update skip locked))
    returning blob_key""")

_EXPIRED = text("""
    -- A create that shares the row is waited for by nobody: the file's turn comes again.
    select id, tenant from files where expires_at <= clock_timestamp()
    order by expires_at limit :limit for update skip locked""")

_OLD_FILES = text("""
    -- What was uploaded longer ago than its tenant keeps files, and was read by no batch that is open or ended later.
    select old.id from tenants t cross join lateral (
        select f.id from files f
        where f.tenant = t.id and f.created_at < clock_timestamp() - t.file_retention_days * interval '1 day'
          and not exists (
            select from batches b
            where b.input_file = f.id and b.tenant = f.tenant
              and (b.state not in ('completed', 'cancelled', 'expired', 'failed')
                   or greatest(b.completed_at, b.cancelled_at, b.expired_at, b.failed_at)
                      >= clock_timestamp() - t.file_retention_days * interval '1 day'))
        order by f.created_at limit :limit for update of f skip locked) old
    where t.file_retention_days is not null
    limit :limit""")

_DELETE_EXPIRED = text("""
    -- A statement of its own after the lock, so that it sees every batch that was created before.
    with gone as (
        delete from files f where f.id = any(cast(:ids as text[])) and not exists (
            select from batches b where b.tenant = f.tenant and b.input_file = f.id and b.state = 'validating')
        and not exists (
            select from batches b
            where b.tenant = f.tenant and b.reads <> '{}' and f.id = any(b.reads)
              and b.state in ('validating', 'in_progress', 'paused', 'cancelling', 'finalizing'))
        returning blob_key)
    insert into intents (blob_key, doomed_at) select blob_key, clock_timestamp() from gone
    on conflict (blob_key) do nothing""")

_EXPIRED_UPLOADS = text("""
    -- Some time later only, so that a complete that began in time still finds its parts.
    select id from uploads where state = 'pending' and expires_at < clock_timestamp() - interval '10 minutes'
    order by expires_at limit :limit for update skip locked""")

_EXPIRE_UPLOADS = text("""
    -- A statement of its own after the lock, so that it sees every part that came before.
    with gone as (delete from upload_parts where upload = any(cast(:ids as text[])) returning blob_key),
    doomed as (
        insert into intents (blob_key, doomed_at) select blob_key, clock_timestamp() from gone
        on conflict (blob_key) do nothing)
    update uploads set state = 'expired' where id = any(cast(:ids as text[]))""")

_DELETE_UPLOADS = text("""
    delete from uploads where id = any(array(
        select id from uploads where state <> 'pending' and expires_at < clock_timestamp() - interval '1 day'
        order by expires_at limit :limit for update skip locked))""")

_DELETE_UNHEARD = text("""
    delete from unheard_creates where made = any(array(
        select made from unheard_creates where asked_at < clock_timestamp() - interval '10 minutes'
        order by asked_at limit :limit for update skip locked))""")

_LEFTOVERS = text("""
    select batch from leftovers where since < clock_timestamp() - :after
    order by since limit :limit for update skip locked""")

_DELETE_SEGMENTS = text("""
    -- The rows go and their blobs are due for deletion in one step. An inline job's rows are its results.
    -- What they counted goes on in usage_lines: in the same statement, so that it is in one of the two, once.
    with gone as (
        delete from segments g using slices s, batches own
        where s.id = g.slice and own.id = s.batch and g.id = any(array(
            select g.id from batches b join slices s on s.batch = b.id join segments g on g.slice = s.id
            where b.id = any(cast(:batches as text[])) and (:inline or not b.inline) limit :limit))
        returning g.*, s.tenant, s.model, s.lane, own.api_key),
    summed as (
        select tenant, model, lane, coalesce(api_key, '') as api_key, date_trunc('hour', created_at, 'UTC') as hour,
               sum(completed) as requests, sum(input_tokens) as input_tokens, sum(cached_tokens) as cached_tokens,
               sum(output_tokens) as output_tokens, sum(reasoning_tokens) as reasoning_tokens,
               sum(reused_output_tokens) as reused_output_tokens, sum(gpu_microseconds) as gpu_microseconds,
               sum(token_cost) as token_cost, sum(gpu_cost) as gpu_cost
        from gone where model is not null  -- skipped lines ask none
        group by 1, 2, 3, 4, 5),
    apart as (
        -- Of many keys the first count apart, so that a tenant's rows do not grow with its keys.
        select s.*, case
            when s.api_key = any(had.keys) or cardinality(had.keys) + dense_rank() over (
                partition by s.tenant, s.hour, s.model, s.lane order by s.api_key) <= :most_keys
            then s.api_key else '' end as counted_key
        from summed s, lateral (
            select array(select u.api_key from usage_lines u
                         where (u.tenant, u.hour, u.model, u.lane) = (s.tenant, s.hour, s.model, s.lane)) as keys) had),
    kept as (
        insert into usage_lines as u (tenant, model, hour, lane, api_key, requests, input_tokens, cached_tokens,
            output_tokens, reasoning_tokens, reused_output_tokens, gpu_microseconds, token_cost, gpu_cost)
        select tenant, model, hour, lane, counted_key, sum(requests), sum(input_tokens), sum(cached_tokens),
               sum(output_tokens), sum(reasoning_tokens), sum(reused_output_tokens), sum(gpu_microseconds),
               sum(token_cost), sum(gpu_cost)
        from apart group by 1, 2, 3, 4, 5 order by 1, 3, 2, 4, 5
        on conflict (tenant, hour, model, lane, api_key) do update set
            requests = u.requests + excluded.requests, input_tokens = u.input_tokens + excluded.input_tokens,
            cached_tokens = u.cached_tokens + excluded.cached_tokens,
            output_tokens = u.output_tokens + excluded.output_tokens,
            reasoning_tokens = u.reasoning_tokens + excluded.reasoning_tokens,
            reused_output_tokens = u.reused_output_tokens + excluded.reused_output_tokens,
            gpu_microseconds = u.gpu_microseconds + excluded.gpu_microseconds,
            token_cost = u.token_cost + excluded.token_cost, gpu_cost = u.gpu_cost + excluded.gpu_cost),
    doomed as (
        insert into intents (blob_key, doomed_at) select blob_key, clock_timestamp() from gone
        where blob_key is not null
        on conflict (blob_key) do nothing)
    select count(*) from gone""")

_DELETE_SUSPECTS = text("""
    delete from suspects where slice in (select id from slices where batch = any(cast(:batches as text[])))""")

_DOOM_PLANS = text("""
    insert into intents (blob_key, doomed_at)
    select plan_key, clock_timestamp() from batches
    where id = any(cast(:batches as text[])) and plan_key is not null
    union all
    select plan_key, clock_timestamp() from slices
    where batch = any(cast(:batches as text[])) and plan_key is not null
    on conflict (blob_key) do nothing""")

_DELETE_LEFTOVERS = text("delete from leftovers where batch = any(cast(:batches as text[]))")

_DELETE_LEASES = text("""
    -- Closed a day ago, of batches that have ended: nobody repeats a claim or a settle of theirs any more.
    delete from leases where id = any(array(
        select l.id from leases l join batches b on b.id = l.batch
        where l.closed_at < clock_timestamp() - interval '1 day'
          and b.state in ('completed', 'cancelled', 'expired', 'failed')
          and not exists (select from suspects where trial = l.id)
        order by l.closed_at limit :limit
        for update of l skip locked))""")

_DELETE_EVENTS = text("""
    -- Not while something of them is owed or logged.
    delete from events where id = any(array(
        select e.id from events e
        where e.created_at < clock_timestamp() - :after and not exists (select from deliveries where event = e.id)
        order by e.created_at limit :limit for update of e skip locked))""")

_DELETE_DELIVERIES = text("""
    -- Their attempts go with them.
    delete from deliveries where id = any(array(
        select id from deliveries where state <> 'pending' and ended_at < clock_timestamp() - :after
        order by ended_at limit :limit for update skip locked))""")

_DELETE_ENDPOINTS = text("""
    -- Deleted ones, and those of batches that ended as long ago, once their last delivery is gone.
    delete from webhook_endpoints where id = any(array(
        select w.id from webhook_endpoints w left join batches b on b.id = w.batch
        where (w.disabled_as = 'deleted' or b.state in ('completed', 'cancelled', 'expired', 'failed'))
          and greatest(w.updated_at, coalesce(b.completed_at, b.cancelled_at, b.expired_at, b.failed_at))
              < clock_timestamp() - :after
          and not exists (select from deliveries where endpoint = w.id)
        limit :limit for update of w skip locked))""")

_DELETE_TRAIL = text("""
    -- Only the oldest rows are looked at, by id: they are as good as ordered by time.
    delete from trail where id = any(array(select id from trail order by id limit :limit))
        and at < clock_timestamp() - greatest(:after, interval '1 day' + interval '1 minute')""")

_DELETE_USAGE: Final = tuple(
    text(f"""
    delete from {table} where ctid = any(array(
        select old.ctid from tenants t cross join lateral (
            select u.ctid from {table} u where u.tenant = t.id and u.hour < clock_timestamp() - :after
            order by u.hour limit :limit for update skip locked) old
        limit :limit))""")
    for table in ("usage_lines", "usage_calls")
)
"""From tenant to tenant, a step in the index for each. A row that is locked does not change its place."""


def doom_unfinished(conn: Connection, *, after: timedelta, late: timedelta, limit: int) -> int:
    """Give up blobs that are being written for longer than `after`; they are deleted `late` afterwards."""
    return conn.execute(_DOOM_UNFINISHED, {"after": after, "late": late, "limit": limit}).rowcount


def due(conn: Connection, *, again: timedelta, limit: int) -> list[str]:
    """Keys of doomed blobs that are to be deleted now; unless forgotten, they are due again after `again`."""
    return [row.blob_key for row in conn.execute(_DUE, {"again": again, "limit": limit})]


def delete_expired_files(conn: Connection, *, limit: int) -> int:
    """Delete files that have expired and that no batch reads; their blobs are doomed."""
    ids = [row.id for row in conn.execute(_EXPIRED, {"limit": limit})]
    return conn.execute(_DELETE_EXPIRED, {"ids": ids}).rowcount if ids else 0


def delete_old_files(conn: Connection, *, limit: int) -> int:
    """Delete files that are older than their tenant keeps files, and that no batch reads; their blobs are doomed."""
    ids = [row.id for row in conn.execute(_OLD_FILES, {"limit": limit})]
    return conn.execute(_DELETE_EXPIRED, {"ids": ids}).rowcount if ids else 0


def expire_uploads(conn: Connection, *, limit: int) -> int:
    """End uploads that nobody completed in time; the blobs of their parts are doomed."""
    ids = [row.id for row in conn.execute(_EXPIRED_UPLOADS, {"limit": limit})]
    return conn.execute(_EXPIRE_UPLOADS, {"ids": ids}).rowcount if ids else 0


def delete_uploads(conn: Connection, *, limit: int) -> int:
    """Delete uploads that ended a day ago or longer."""
    return conn.execute(_DELETE_UPLOADS, {"limit": limit}).rowcount


def delete_unheard(conn: Connection, *, limit: int) -> int:
    """Forget creates whose answer nobody heard, once no retry can be of them."""
    return conn.execute(_DELETE_UNHEARD, {"limit": limit}).rowcount


def leftovers(conn: Connection, *, after: timedelta, limit: int) -> list[str]:
    """Lock batches that ended longer than `after` ago and of which pieces are left."""
    return [row.batch for row in conn.execute(_LEFTOVERS, {"after": after, "limit": limit})]


def delete_segments(conn: Connection, batches: Sequence[str], *, limit: int, inline: bool = False) -> int:
    """Delete some segments of ended batches, and of inline jobs if told to; their blobs are doomed."""
    values = {"batches": list(batches), "limit": limit, "inline": inline, "most_keys": MOST_KEYS}
    return int(conn.execute(_DELETE_SEGMENTS, values).scalar_one())


def delete_leftovers(conn: Connection, batches: Sequence[str]) -> None:
    """Delete what else is left of ended batches without segments: suspects, the plan's blob, the note of it."""
    conn.execute(_DELETE_SUSPECTS, {"batches": batches})
    conn.execute(_DOOM_PLANS, {"batches": batches})
    conn.execute(_DELETE_LEFTOVERS, {"batches": batches})


def delete_leases(conn: Connection, *, limit: int) -> int:
    """Delete leases of ended batches that are closed for a day."""
    return conn.execute(_DELETE_LEASES, {"limit": limit}).rowcount


def delete_events(conn: Connection, *, after: timedelta, limit: int) -> int:
    """Delete events older than `after`."""
    return conn.execute(_DELETE_EVENTS, {"after": after, "limit": limit}).rowcount


def delete_deliveries(conn: Connection, *, after: timedelta, limit: int) -> int:
    """Delete deliveries that ended longer than `after` ago, with their attempts."""
    return conn.execute(_DELETE_DELIVERIES, {"after": after, "limit": limit}).rowcount


def delete_endpoints(conn: Connection, *, after: timedelta, limit: int) -> int:
    """Delete webhook endpoints that were deleted, or whose batch has ended, longer than `after` ago."""
    return conn.execute(_DELETE_ENDPOINTS, {"after": after, "limit": limit}).rowcount


def delete_usage(conn: Connection, *, after: timedelta, limit: int) -> int:
    """Delete hours of usage that are older than `after`; of the lines' or of the calls', the greater number."""
    return max(conn.execute(statement, {"after": after, "limit": limit}).rowcount for statement in _DELETE_USAGE)


def delete_trail(conn: Connection, *, after: timedelta, limit: int) -> int:
    """Delete the oldest rows of the trail, if they are older than `after`; the database keeps a day in any case."""
    return conn.execute(_DELETE_TRAIL, {"after": after, "limit": limit}).rowcount
