"""ETA: who would work for a batch that is not there yet, and the tokens that would go before it."""

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

_NOTHING_YET = text(f"""
    -- For models of a batch that is not there yet: who works for them. One that has not measured itself yet counts as
    -- the mean of the others, and where none has, all count as `penstock tune` measured such machines.
    select m.name as model, m.tokens_scale, live.*, t.weight::float8 as weight, clock_timestamp() as now
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
    """What is known of one model's estimates and its workers."""

    model: str
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


def nothing_yet(conn: Connection, tenant: str, *, models: Sequence[str], gone: timedelta) -> list[Own]:
    """For each of these models that is known: who would work for a batch that is not there yet."""
    values = {"tenant": tenant, "models": list(models), "gone": gone}
    return [Own(**row._mapping) for row in conn.execute(_NOTHING_YET, values)]


def beside(conn: Connection, batch: str, *, models: Sequence[str], rank: int, deadline: datetime) -> list[Beside]:
    """What others have open for these models in this lane and above, by model and tenant."""
    values = {"batch": batch, "models": list(models), "rank": rank, "deadline": deadline}
    return [Beside(**row._mapping) for row in conn.execute(_BESIDE, values)]
