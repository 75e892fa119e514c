"""Batches: their rows, and the moves of their state."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from penstock.domain.accounts.cost import Cost, Savings
from penstock.domain.accounts.tokens import Usage
from penstock.domain.idempotency import fingerprint_of, key_of
from penstock.domain.work.batch import Batch, BatchEnd, BatchState, PauseReason
from penstock.domain.work.lane import Lane
from penstock.domain.work.new_batch import NewBatch
from penstock.domain.work.retry import Retry
from penstock.domain.work.terms import OnInvalid

_INSERT = text("""
    -- The deadline counts from the database's clock. A second create with the same idempotency key inserts nothing.
    insert into batches (id, tenant, kind, inline, state, endpoint, lane, completion_window, deadline, metadata,
                         input_file, input_key, output_expires_seconds, idempotency_key, fingerprint, dedup, plan,
                         cache, cache_ttl_seconds, parent, root, repeats, reads, allowed_models, on_invalid,
                         default_model, trace, api_key)
    values (:id, :tenant, :kind, false, 'validating', :endpoint, :lane, :completion_window, now() + :window,
            cast(:metadata as jsonb), :input_file, :input_key, :output_expires_seconds, :idempotency_key, :fingerprint,
            :dedup, :plan, :cache, :cache_ttl_seconds, :parent, :root, cast(:repeats as jsonb), cast(:reads as text[]),
            cast(:allowed_models as text[]), :on_invalid, :default_model, :trace, :api_key)
    on conflict (tenant, idempotency_key) where idempotency_key is not null do nothing
    returning id""")

# Counts and usage of an open batch are sums over its slices; an ended batch carries its own. Counts are of the batch's
# lines: what an ensemble's members answered is counted in their fold.
COLUMNS = """
    select b.*, live.*, (select currency from prices limit 1) as currency,
           case when live_empty > 0 then array(
               select line from slices s, unnest(s.empty_lines) as line
               where s.batch = b.id and s.fold is null order by line limit 10)
           else '{}' end as live_empty_lines"""
FROM = """
    from batches b
    left join lateral (
        select coalesce(sum(s.completed) filter (where s.fold is null), 0)::int as live_completed,
               coalesce(sum(s.failed) filter (where s.fold is null), 0)::int as live_failed,
               coalesce(sum(s.empty) filter (where s.fold is null), 0)::int as live_empty,
               coalesce(sum(s.input_tokens), 0)::bigint as live_input_tokens,
               coalesce(sum(s.cached_tokens), 0)::bigint as live_cached_tokens,
               coalesce(sum(s.output_tokens), 0)::bigint as live_output_tokens,
               coalesce(sum(s.reasoning_tokens), 0)::bigint as live_reasoning_tokens,
               coalesce(sum(s.reused_output_tokens), 0)::bigint as live_reused_output_tokens,
               coalesce(sum(s.gpu_microseconds), 0)::bigint as live_gpu_microseconds,
               coalesce(sum(s.token_cost), 0) as live_token_cost, coalesce(sum(s.gpu_cost), 0) as live_gpu_cost,
               coalesce(sum(s.equal_input_tokens), 0)::bigint as live_equal_input_tokens,
               coalesce(sum(s.shared_input_tokens), 0)::bigint as live_shared_input_tokens,
               coalesce(sum(s.shared_output_tokens), 0)::bigint as live_shared_output_tokens,
               coalesce(sum(s.prefix_saved), 0) as live_prefix_saved,
               coalesce(sum(s.equal_saved), 0) as live_equal_saved,
               coalesce(sum(s.shared_saved), 0) as live_shared_saved
        from slices s
        where s.batch = b.id and b.state in ('in_progress', 'paused', 'cancelling', 'finalizing')) live on true
    """

_SELECT = COLUMNS + FROM
_GET = text(_SELECT + "where b.tenant = :tenant and b.id = :id")
_BY_KEY = text("select id, fingerprint from batches where tenant = :tenant and idempotency_key = :key")
_FIND = text(_SELECT + "where b.id = any(cast(:ids as text[]))")
_STATE = text("select state from batches where tenant = :tenant and kind = :kind and id = :id")
_LOCK = text("select id from batches where id = any(cast(:ids as text[])) order by id for no key update")
_TRY_LOCK = text("select 1 from batches where id = :id for no key update skip locked")

_BEGIN = text("""
    -- Validation's commit: only its present holder, and only if nobody closed the batch meanwhile.
    update batches set state = 'in_progress', in_progress_at = now(), model = :model, total = :total,
                       default_model = coalesce(default_model, :default_model), versions = cast(:versions as jsonb),
                       plan_key = :plan_key, lease = null, attempts = 0, hinted_at = null
    where id = :id and state = 'validating' and finish_as is null and lease = :lease
    returning lane""")

_HOLDS = text("select exists (select from batches where id = :id and lease = :lease and state = :state)")

_CLOSE = text("""
    -- Closing begins: once, by whoever comes first. A cancelled batch shows it, the others go on to finalizing.
    -- Its validation ends with it: whoever validates hears in the next beat that the lease is lost.
    with closing as (
        select id, lease from batches
        where id = :id and finish_as is null and state in ('validating', 'in_progress', 'paused')),
    shut as (
        update leases l set closed_at = clock_timestamp(), closed_as = 'released'
        from closing where l.id = closing.lease and l.closed_at is null)
    update batches b set finish_as = :finish_as, lease = null,
           state = case when :finish_as = 'cancelled' then 'cancelling' else state end,
           cancelling_at = case when :finish_as = 'cancelled' then now() end
    from closing where b.id = closing.id
    returning b.id""")

_FINALIZE = text("""
    -- No slice is open any more; what was not closed by anybody is complete.
    update batches set state = 'finalizing', finalizing_at = now(), lease = null, attempts = 0, hinted_at = null,
                       finish_as = coalesce(finish_as, 'completed')
    where id = any(cast(:ids as text[])) and state in ('validating', 'in_progress', 'paused', 'cancelling')
    returning id""")

_END = text("""
    -- The last move: counts and usage freeze as the sums over the slices. Lines without an answer count as failed.
    with sums as (
        select b.id, of_slices.*
        from batches b
        cross join lateral (
            select coalesce(sum(s.completed) filter (where s.fold is null), 0) as completed,
                   coalesce(sum(s.input_tokens), 0) as input_tokens,
                   coalesce(sum(s.cached_tokens), 0) as cached_tokens,
                   coalesce(sum(s.output_tokens), 0) as output_tokens,
                   coalesce(sum(s.reasoning_tokens), 0) as reasoning_tokens,
                   coalesce(sum(s.reused_output_tokens), 0) as reused_output_tokens,
                   coalesce(sum(s.gpu_microseconds), 0) as gpu_microseconds,
                   coalesce(sum(s.token_cost), 0) as token_cost, coalesce(sum(s.gpu_cost), 0) as gpu_cost,
                   coalesce(sum(s.equal_input_tokens), 0) as equal_input_tokens,
                   coalesce(sum(s.shared_input_tokens), 0) as shared_input_tokens,
                   coalesce(sum(s.shared_output_tokens), 0) as shared_output_tokens,
                   coalesce(sum(s.prefix_saved), 0) as prefix_saved, coalesce(sum(s.equal_saved), 0) as equal_saved,
                   coalesce(sum(s.shared_saved), 0) as shared_saved,
                   coalesce(sum(s.empty) filter (where s.fold is null), 0) as empty,
                   array(select line from slices e, unnest(e.empty_lines) as line
                         where e.batch = b.id and e.fold is null order by line limit 10) as empty_lines
            from slices s where s.batch = b.id) of_slices
        where b.id = any(cast(:ids as text[]))),
    ended as (
    update batches b set
        state = :state, lease = null, finish_as = case when :state = 'failed' then 'failed' else b.finish_as end,
        completed_at = case when :state = 'completed' then now() end,
        failed_at = case when :state = 'failed' then now() end,
        expired_at = case when :state = 'expired' then now() end,
        cancelled_at = case when :state = 'cancelled' then now() end,
        completed = sums.completed, failed = b.total - sums.completed,
        empty = sums.empty, empty_lines = sums.empty_lines,
        input_tokens = sums.input_tokens, cached_tokens = sums.cached_tokens,
        output_tokens = sums.output_tokens, reasoning_tokens = sums.reasoning_tokens,
        reused_output_tokens = sums.reused_output_tokens,
        gpu_microseconds = sums.gpu_microseconds, token_cost = sums.token_cost, gpu_cost = sums.gpu_cost,
        equal_input_tokens = sums.equal_input_tokens, shared_input_tokens = sums.shared_input_tokens,
        shared_output_tokens = sums.shared_output_tokens,
        prefix_saved = sums.prefix_saved, equal_saved = sums.equal_saved, shared_saved = sums.shared_saved,
        output_file = :output_file, error_file = :error_file,
        merged_output_file = :merged_output_file, merged_error_file = :merged_error_file,
        trace_file = :trace_file,
        errors = cast(:errors as jsonb), error_count = :error_count
    from sums where b.id = sums.id
    returning b.*),
    told as (
        -- For metrics: see batch_ends.py. An inline job's answers come with its end.
        insert into batch_ends (kind, lane, state, late, seconds, validating_seconds, first_answer_seconds,
                                finalizing_seconds, cost, expected_seconds, taken_seconds)
        select e.kind, e.lane, e.state, e.state in ('completed', 'expired') and now() > e.deadline,
               extract(epoch from now() - e.created_at), extract(epoch from e.in_progress_at - e.created_at),
               extract(epoch from first.at - e.in_progress_at), extract(epoch from now() - e.finalizing_at),
               e.token_cost + e.gpu_cost,
               case when e.state = 'completed' then extract(epoch from x.expected_at - x.said_at) end,
               case when e.state = 'completed' then extract(epoch from e.finalizing_at - x.said_at) end
        from ended e left join first_expectations x on x.batch = e.id
        left join lateral (
            -- `offset 0`: else the oldest segments of all would be read in their order, up to the batch's first.
            select min(at) as at from (
                select g.created_at as at from segments g
                where not e.inline
                  and g.slice = any(array(select s.id from slices s where s.batch = e.id and s.model is not null))
                offset 0) g
            ) first on true),
    settled as (delete from first_expectations where batch in (select id from ended))
    select id from ended""")

_EVENT = text("""
    insert into events (id, tenant, batch, type)
    select given.event, b.tenant, b.id, :type
    from unnest(cast(:events as text[]), cast(:ids as text[])) as given(event, id) join batches b on b.id = given.id""")


_LIVE = (BatchState.IN_PROGRESS, BatchState.PAUSED, BatchState.CANCELLING, BatchState.FINALIZING)
_CONVERTED = {
    "state", "finish_as", "lane", "completed", "failed", "usage", "cost", "savings", "currency", "empty", "empty_lines",
    "errors", "repeats", "paused_as", "on_invalid",
}  # fmt: skip
_COUNTED = (
    "input", "cached", "output", "reasoning", "reused_output", "equal_input", "shared_input", "shared_output",
)  # fmt: skip
_SAVED = ("prefix", "equal", "shared")
_PLAIN = [field.name for field in dataclasses.fields(Batch) if field.name not in _CONVERTED]


def of_row(row: Row[Any]) -> Batch:
    """A row of COLUMNS."""
    m = row._mapping
    state = BatchState(m["state"])
    live = "live_" if state in _LIVE else ""
    return Batch(
        **{name: m[name] for name in _PLAIN},
        state=state,
        finish_as=BatchState(m["finish_as"]) if m["finish_as"] else None,
        lane=Lane(m["lane"]),
        completed=m[f"{live}completed"],
        failed=m[f"{live}failed"],
        usage=Usage(*(m[f"{live}{name}_tokens"] or 0 for name in _COUNTED)),
        cost=Cost(m[f"{live}gpu_microseconds"], int(m[f"{live}token_cost"]), int(m[f"{live}gpu_cost"])),
        savings=_savings(row, live),
        currency=m["currency"],
        empty=m[f"{live}empty"],
        empty_lines=tuple(m[f"{live}empty_lines"]),
        errors=tuple(m["errors"]),
        repeats=Retry.of_json(m["repeats"]) if m["repeats"] else None,
        paused_as=PauseReason(m["paused_as"]) if m["paused_as"] else None,
        on_invalid=OnInvalid(m["on_invalid"]),
    )


def _savings(row: Row[Any], live: str) -> Savings | None:
    saved = [row._mapping[f"{live}{name}_saved"] for name in _SAVED]
    return None if saved[0] is None else Savings(*map(int, saved))


def insert(conn: Connection, new: NewBatch) -> bool:
    """Insert a batch that waits to be validated; False if its tenant has one with this idempotency key already."""
    return conn.execute(_INSERT, to_row(new)).first() is not None


def to_row(new: NewBatch) -> dict[str, Any]:
    """A new batch as statements take it."""
    terms, once = new.terms, new.once
    return {
        **vars(terms),
        **vars(new),
        "lane": terms.lane.value,
        "lane_rank": terms.lane.rank,
        "metadata": json.dumps(terms.metadata),
        "idempotency_key": key_of(once),
        "fingerprint": fingerprint_of(once),
        "repeats": json.dumps(new.repeats.as_json()) if new.repeats else None,
        "reads": list(new.reads),
        "allowed_models": None if terms.allowed_models is None else sorted(terms.allowed_models),
    }


def by_idempotency_key(conn: Connection, tenant: str, key: str) -> tuple[str, bytes] | None:
    """The batch that this key created, and the fingerprint of its request."""
    row = conn.execute(_BY_KEY, {"tenant": tenant, "key": key}).first()
    return (row.id, bytes(row.fingerprint)) if row else None


def get(conn: Connection, tenant: str, id: str) -> Batch | None:
    """A tenant's batch, with live counts."""
    row = conn.execute(_GET, {"tenant": tenant, "id": id}).first()
    return of_row(row) if row else None


def find(conn: Connection, id: str) -> Batch | None:
    """A batch of any tenant: for the platform's own work, never for a caller."""
    found = find_all(conn, [id])
    return found[0] if found else None


def find_all(conn: Connection, ids: Sequence[str]) -> list[Batch]:
    """Those of these batches that are there, of any tenant."""
    return [of_row(row) for row in conn.execute(_FIND, {"ids": list(ids)})]


def state_of(conn: Connection, tenant: str, kind: str, id: str) -> BatchState | None:
    """The state alone."""
    state = conn.execute(_STATE, {"tenant": tenant, "kind": kind, "id": id}).scalar()
    return BatchState(state) if state else None


def lock(conn: Connection, id: str) -> bool:
    """Lock the batch's row; every change of its slices' state but claim and dispatch begins here."""
    return lock_all(conn, [id]) == 1


def lock_all(conn: Connection, ids: Sequence[str]) -> int:
    """Lock several batches' rows, in one order for all; how many there are."""
    return len(conn.execute(_LOCK, {"ids": list(ids)}).all())


def try_lock(conn: Connection, id: str) -> bool:
    """Lock the batch's row unless somebody holds it: for ticks that will come again."""
    return conn.execute(_TRY_LOCK, {"id": id}).first() is not None


def begin(
    conn: Connection,
    id: str,
    *,
    lease: int,
    model: str | None,
    total: int,
    plan_key: str,
    default_model: str | None = None,
    versions: Mapping[str, int] | None = None,
) -> Lane | None:
    """Move to in_progress with a plan; the batch's lane as it is now, for somebody may have changed it meanwhile.

    None if this lease is not the batch's any more, or it is closing.
    """
    values = {"id": id, "lease": lease, "model": model, "total": total, "plan_key": plan_key}
    pinned = {asked: [number] for asked, number in (versions or {}).items()}
    values |= {"default_model": default_model, "versions": json.dumps(pinned) if pinned else None}
    lane = conn.execute(_BEGIN, values).scalar()
    return Lane(lane) if lane else None


def holds(conn: Connection, id: str, lease: int, state: BatchState) -> bool:
    """Say whether the locked batch is still in this state and under this lease."""
    return bool(conn.execute(_HOLDS, {"id": id, "lease": lease, "state": state}).scalar_one())


def close(conn: Connection, id: str, finish_as: BatchState) -> bool:
    """Begin closing; False if it is closing or closed already. The batch must be locked."""
    return conn.execute(_CLOSE, {"id": id, "finish_as": finish_as}).first() is not None


def finalize(conn: Connection, ids: Sequence[str]) -> int:
    """Move batches to finalizing; the caller has locked them and seen that no slice is open. How many moved."""
    return len(conn.execute(_FINALIZE, {"ids": list(ids)}).all())


def end(conn: Connection, events: Mapping[str, str], how: BatchEnd) -> None:
    """Make the last move of these batches, freeze counts and usage, and write each one's event, whose id is given.

    In one transaction with whatever led here.
    """
    errors = [dataclasses.asdict(error) for error in how.errors]
    values = dataclasses.asdict(how) | {"ids": list(events), "errors": json.dumps(errors)}
    if len(conn.execute(_END, values).all()) != len(events):
        raise LookupError(f"not all there: {', '.join(events)}")
    conn.execute(_EVENT, {"events": list(events.values()), "ids": list(events), "type": f"batch.{how.state}"})


def now(conn: Connection) -> datetime:
    """The database's clock, the only one that decides."""
    at: datetime = conn.execute(text("select clock_timestamp()")).scalar_one()
    return at
