"""ETA: sums of the tokens that are left of a batch, and of those that go before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from penstock.store.models.tunings import tuned

_LIVE = f"""    cross join lateral (
        select count(*)::int as workers,
            coalesce(count(*) * coalesce(avg(nullif(w.tokens_per_second, 0)), avg(tuned.tokens_per_second)), 0)::float8
                as tokens_per_second,
            coalesce(sum(case when w.budget > 0 then w.budget else w.slots end), 0)::int as lines_at_once
        from workers w{tuned("w.model", "w.device")}
        where w.kind = 'gpu' and w.model = {{model}} and w.state = 'ready'
          and w.seen_at > clock_timestamp() - :gone) live"""

_OWN = text(f"""
    -- For each model of a batch: what is left by estimate, how right the estimates of its own slices were, and how fast
    -- the model's live workers are; one that has not measured itself yet counts as the mean of the others, and where
    -- none has, all count as `penstock tune` measured such machines. A fold is no model's work.
    select own.*, m.tokens_scale, live.*, t.weight::float8 as weight, clock_timestamp() as now
    from (select tenant from batches where id = :batch) b join tenants t on t.id = b.tenant
    cross join (
        select s.model,
            coalesce(sum(s.tokens::float8 * (s.lines - s.completed - s.failed) / s.lines)
                filter (where s.state in ('queued', 'ready', 'running')), 0) as left_tokens,
            coalesce(sum(s.lines - s.completed - s.failed)
                filter (where s.state in ('queued', 'ready', 'running')), 0)::int as left_lines,
            coalesce(sum(s.tokens) filter (where s.state = 'done'), 0)::float8 as settled_estimate,
            coalesce(sum(s.input_tokens + s.output_tokens) filter (where s.state = 'done'), 0)::float8
                as settled_tokens,
            coalesce(sum(s.tokens::float8 * (s.completed + s.failed) / s.lines), 0) as recorded_estimate,
            sum(s.input_tokens + s.output_tokens)::float8 as recorded_tokens
        from slices s where s.batch = :batch and s.model is not null group by s.model) own
    left join models m on m.name = own.model
{_LIVE.format(model="own.model")}
    where own.left_lines > 0
    order by own.model""")

_NOTHING_YET = text(f"""
    -- The same for models of a batch that is not there yet.
    select m.name as model, 0::float8 as left_tokens, 0 as left_lines, 0::float8 as settled_estimate,
           0::float8 as settled_tokens, 0::float8 as recorded_estimate, 0::float8 as recorded_tokens,
           m.tokens_scale, live.*, t.weight::float8 as weight, clock_timestamp() as now
    from models m join tenants t on t.id = :tenant
{_LIVE.format(model="m.name")}
    where m.name = any(cast(:models as text[]))
    order by m.name""")

_LEFT = "s.tokens::float8 * (s.lines - s.completed - s.failed) / s.lines"

_BESIDE = text(f"""
    -- Estimated tokens of others in the batch's lane and above, by model and tenant. What waits is in slices_waiting,
    -- what runs is found by its lease: neither looks at slices that are done (100,000 that wait: 25 to 50 ms).
    with waiting as (
        select s.model, s.tenant,
            sum({_LEFT}) filter (where s.lane_rank < :rank) as above,
            sum({_LEFT}) filter (where s.lane_rank = :rank) as beside,
            sum({_LEFT}) filter (where s.lane_rank = :rank and s.deadline < :deadline) as sooner
        from slices s
        where s.model = any(cast(:models as text[])) and s.lane_rank <= :rank
          and s.state in ('queued', 'ready') and not s.held and s.batch <> :batch
        group by s.model, s.tenant),
    running as (
        select s.model, s.tenant,
            sum({_LEFT}) filter (where s.lane_rank < :rank) as above,
            sum({_LEFT}) filter (where s.lane_rank = :rank) as beside,
            sum({_LEFT}) filter (where s.lane_rank = :rank) as sooner
        from leases l join slices s on s.id = l.slice and s.lease = l.id
        where l.closed_at is null and s.model = any(cast(:models as text[])) and s.lane_rank <= :rank
          and s.batch <> :batch
        group by s.model, s.tenant)
    select o.model, o.tenant, t.weight::float8 as weight, coalesce(sum(o.above), 0) as above,
        coalesce(sum(o.beside), 0) as beside, coalesce(sum(o.sooner), 0) as sooner
    from (select * from waiting union all select * from running) o join tenants t on t.id = o.tenant
    group by o.model, o.tenant, t.weight""")


@dataclass(frozen=True)
class Own:
    """What is left of a batch for one model, by estimate, and what is known about such estimates and the workers."""

    model: str
    left_tokens: float
    left_lines: int
    settled_estimate: float
    settled_tokens: float
    """Estimated and real tokens of the batch's settled slices."""
    recorded_estimate: float
    recorded_tokens: float
    """The same of all its answers so far; those of running slices are the shorter ones."""
    tokens_scale: float | None
    """Real over estimated tokens of the model's lately settled slices."""
    workers: int
    tokens_per_second: float
    lines_at_once: int
    weight: float
    """The tenant's, in the lanes."""
    now: datetime


@dataclass(frozen=True)
class Beside:
    """One tenant's other open work for a model in the batch's lane and above, in estimated tokens."""

    model: str
    tenant: str
    weight: float
    above: float
    beside: float
    sooner: float
    """Of `beside`, what runs or has an earlier deadline than the batch."""


def own(conn: Connection, batch: str, *, gone: timedelta) -> list[Own]:
    """What is left of a batch, by model."""
    return [Own(**row._mapping) for row in conn.execute(_OWN, {"batch": batch, "gone": gone})]


def nothing_yet(conn: Connection, tenant: str, *, models: Sequence[str], gone: timedelta) -> list[Own]:
    """For each of these models that is known: nothing is left of a batch that is not there yet, and who would work."""
    values = {"tenant": tenant, "models": list(models), "gone": gone}
    return [Own(**row._mapping) for row in conn.execute(_NOTHING_YET, values)]


def beside(conn: Connection, batch: str, *, models: Sequence[str], rank: int, deadline: datetime) -> list[Beside]:
    """What others have open for these models in this lane and above, by model and tenant."""
    values = {"batch": batch, "models": list(models), "rank": rank, "deadline": deadline}
    return [Beside(**row._mapping) for row in conn.execute(_BESIDE, values)]
