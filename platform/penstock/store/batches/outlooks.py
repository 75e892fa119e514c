"""Outlooks: batches with live counts, and with all that says why each waits and when it will be done: one statement.

However many batches are looked at, what waits for their models is summed once, by model, tenant and lane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, TextClause, text

from penstock.domain.work.batch import Batch
from penstock.store.batches import batches
from penstock.store.models.tunings import tuned

_LEFT = "s.tokens::float8 * (s.lines - s.completed - s.failed) / s.lines"
_GOES = "(s.state = 'running' or s.state in ('queued', 'ready') and not s.held)"


def statement(which: str) -> TextClause:
    """Look at those batches `b` that `which` (joins, conditions, order and limit) chooses, newest first.

    `:gone` says from when on a silent worker is gone. Without `:outlook`, batches and their counts are all it looks at.
    """
    return text(f"""
    with seen as materialized ({batches.COLUMNS}{batches.FROM}{which}),
    asked as materialized (
        select id, tenant, deadline, array_position(array['priority', 'standard', 'flex'], lane) - 1 as rank
        from seen where :outlook and state in ('in_progress', 'paused') and finish_as is null),
    -- For each model of a batch: what is left by estimate, and how right the estimates of its own slices were. A fold
    -- is no model's work.
    own as materialized (
        select a.id as batch, a.tenant, a.deadline, a.rank, s.model,
            coalesce(sum({_LEFT}) filter (where s.state in ('queued', 'ready', 'running')), 0) as left_tokens,
            coalesce(sum(s.lines - s.completed - s.failed)
                filter (where s.state in ('queued', 'ready', 'running')), 0)::int as left_lines,
            coalesce(sum(s.tokens) filter (where s.state = 'done'), 0)::float8 as settled_estimate,
            coalesce(sum(s.input_tokens + s.output_tokens) filter (where s.state = 'done'), 0)::float8
                as settled_tokens,
            coalesce(sum(s.tokens::float8 * (s.completed + s.failed) / s.lines), 0) as recorded_estimate,
            coalesce(sum(s.input_tokens + s.output_tokens), 0)::float8 as recorded_tokens,
            bool_or(s.state in ('queued', 'ready')) as waits,
            bool_or(s.state = 'running') as runs,
            coalesce(sum({_LEFT}) filter (where {_GOES} and s.lane_rank < a.rank), 0) as above,
            coalesce(sum({_LEFT}) filter (where {_GOES} and s.lane_rank = a.rank), 0) as beside,
            coalesce(sum({_LEFT}) filter (where s.state = 'running' and s.lane_rank = a.rank), 0) as running
        from asked a join slices s on s.batch = a.id
        where s.model is not null
        group by a.id, a.tenant, a.deadline, a.rank, s.model
        having sum(s.lines - s.completed - s.failed) filter (where s.state in ('queued', 'ready', 'running')) > 0),
    -- Who works for these models: a worker that has not measured itself yet counts as the mean of the others, and where
    -- none has, all count as `penstock tune` measured such machines.
    models_asked as materialized (
        select m.model, k.tokens_scale, live.*, coalesce(v.model || '@v' || v.number, m.model) as name,
            exists (select from pool_versions p where p.queue = m.model) as pooled
        from (select distinct model from own) m
        left join models k on k.name = m.model
        left join model_versions v on v.queue = m.model
        cross join lateral (
            select count(*)::int as workers,
                coalesce(count(*) * coalesce(avg(nullif(w.tokens_per_second, 0)), avg(tuned.tokens_per_second)), 0)
                    ::float8 as tokens_per_second,
                coalesce(sum(case when w.budget > 0 then w.budget else w.slots end), 0)::int as lines_at_once
            from workers w{tuned("w.model", "w.device")}
            where w.kind = 'gpu' and w.model = m.model and w.state = 'ready'
              and w.seen_at > clock_timestamp() - :gone) live),
    -- What is open for them, by tenant and lane, in estimated tokens. What waits is in slices_waiting, what runs is
    -- found by its lease: neither looks at slices that are done.
    open_work as materialized (
        select o.model, o.tenant, o.rank, sum(o.tokens) as tokens, sum(o.running) as running
        from (
            select m.model, w.tenant, w.rank, w.tokens, 0::float8 as running
            from models_asked m cross join lateral (
                select s.tenant, s.lane_rank as rank, sum({_LEFT}) as tokens from slices s
                where s.model = m.model and s.state in ('queued', 'ready') and not s.held
                group by s.tenant, s.lane_rank) w
            union all
            select s.model, s.tenant, s.lane_rank, sum({_LEFT}), sum({_LEFT})
            from leases l join slices s on s.id = l.slice and s.lease = l.id
            where l.closed_at is null and s.model in (select model from models_asked)
            group by s.model, s.tenant, s.lane_rank) o
        group by o.model, o.tenant, o.rank),
    -- Of what waits for the tenants who are looked at: how much is due before each of these batches.
    due as (
        select d.model, d.tenant, d.rank, d.deadline, sum(d.tokens) as tokens
        from (
            select o.model, o.tenant, w.rank, w.deadline, w.tokens
            from (select distinct model, tenant from own) o cross join lateral (
                select s.lane_rank as rank, s.deadline, {_LEFT} as tokens from slices s
                where s.model = o.model and s.tenant = o.tenant and s.state in ('queued', 'ready') and not s.held) w
            union all
            select model, tenant, rank, deadline, 0 from own) d
        group by d.model, d.tenant, d.rank, d.deadline),
    sooner as materialized (
        select model, tenant, rank, deadline,
            coalesce(sum(tokens) over (partition by model, tenant, rank order by deadline
                                       rows between unbounded preceding and 1 preceding), 0) as tokens
        from due)
    select seen.*, clock_timestamp() as now,
        (select jsonb_agg(to_jsonb(o) || jsonb_build_object('sooner', s.tokens, 'weight', t.weight) order by o.model)
         from own o join sooner s using (model, tenant, rank, deadline) join tenants t on t.id = o.tenant
         where o.batch = seen.id) as own,
        case when row_number() over () = 1 then
            (select jsonb_agg(to_jsonb(m)) from models_asked m) end as models_asked,
        case when row_number() over () = 1 then
            (select jsonb_agg(to_jsonb(o) || jsonb_build_object('weight', t.weight))
             from open_work o join tenants t on t.id = o.tenant) end as open_work,
        :outlook and exists (select from workers w where w.kind = 'io' and w.state <> 'gone'
                             and w.seen_at > clock_timestamp() - :gone) as has_io_worker
    from seen order by seen.created_at desc, seen.id desc""")


_OF = statement("where b.id = any(cast(:ids as text[]))")


@dataclass(frozen=True)
class OwnWork:
    """What is left of a batch for one model, by estimate, and what is known about such estimates."""

    model: str
    left_tokens: float
    left_lines: int
    settled_estimate: float
    settled_tokens: float
    """Estimated and real tokens of the batch's settled slices."""
    recorded_estimate: float
    recorded_tokens: float
    """The same of all its answers so far; those of running slices are the shorter ones."""
    waits: bool
    """A slice of it does."""
    runs: bool
    above: float
    beside: float
    running: float
    """Of its own tokens, those that OpenWorkRow counts in more urgent lanes, in its lane, and there as running."""
    sooner: float
    """What waits of the tenant's in its lane and has an earlier deadline."""
    weight: float
    """The tenant's, in the lanes."""


@dataclass(frozen=True)
class AskedModel:
    """Who works for one model."""

    model: str
    """Its queue."""
    name: str
    """As people know it: with the version, where there is one."""
    tokens_scale: float | None
    """Real over estimated tokens of the model's lately settled slices."""
    workers: int
    tokens_per_second: float
    lines_at_once: int
    pooled: bool
    """A pool may serve it."""


@dataclass(frozen=True)
class OpenWorkRow:
    """What one tenant has open for a model in one lane, in estimated tokens."""

    model: str
    tenant: str
    rank: int
    tokens: float
    running: float
    """Of these."""
    weight: float


@dataclass(frozen=True)
class BatchesSeen:
    """Batches, newest first, and what was looked up with them."""

    batches: list[Batch]
    own: Mapping[str, list[OwnWork]]
    """By batch; of those in progress that have something left."""
    models: Mapping[str, AskedModel]
    work: Sequence[OpenWorkRow]
    has_io_worker: bool
    now: datetime | None
    """The database's clock; None without a batch."""


def look(
    conn: Connection, which: TextClause, values: Mapping[str, Any], *, gone: timedelta, outlook: bool
) -> BatchesSeen:
    """Run a `statement`."""
    rows = conn.execute(which, {**values, "gone": gone, "outlook": outlook}).all()
    models = next((row.models_asked for row in rows if row.models_asked), ())
    work = next((row.open_work for row in rows if row.open_work), ())
    return BatchesSeen(
        [batches.of_row(row) for row in rows],
        {row.id: [_of(OwnWork, one) for one in row.own] for row in rows if row.own},
        {one["model"]: _of(AskedModel, one) for one in models},
        [_of(OpenWorkRow, one) for one in work],
        bool(rows) and rows[0].has_io_worker,
        rows[0].now if rows else None,
    )


def of(conn: Connection, ids: Sequence[str], *, gone: timedelta) -> BatchesSeen:
    """Batches by their ids, of any tenant: whoever asks has found them as a tenant's."""
    return look(conn, _OF, {"ids": list(ids)}, gone=gone, outlook=True)


def _of(kind: type[Any], found: Mapping[str, Any]) -> Any:
    return kind(**{name: found[name] for name in kind.__dataclass_fields__})
