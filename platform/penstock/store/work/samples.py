"""Samples: numbers of the platform every ten seconds for a day, and every minute for a week, for charts.

`''` stands for all models, or all lanes. The row of all and all is there for every tick.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, text

STEPS: Final = {10: timedelta(days=1), 60: timedelta(days=7)}
"""Seconds between two samples, and how long they are kept."""
_LATE: Final = timedelta(seconds=2)
"""Answers are dated by the beginning of their transaction: what ends so much later is still counted."""

_BEGIN = text("""
    -- Whoever inserts the tick's row writes the others; who comes at the same time waits for that, and finds it.
    insert into samples (step, model, lane, at)
    select 10, '', '', date_bin('10 s', clock_timestamp(), 'epoch')
    where not exists (select from samples where step = 10 and model = '' and lane = ''
                      and at = date_bin('10 s', clock_timestamp(), 'epoch'))
    on conflict do nothing returning at""")
_FLOW = text("""
    select s.model, s.lane, sum(cardinality(g.lines))::int as lines, sum(g.input_tokens)::bigint as input_tokens,
           sum(g.output_tokens)::bigint as output_tokens
    from segments g join slices s on s.id = g.slice
    where g.created_at > :since and g.created_at <= :until and s.model is not null
    group by s.model, s.lane""")
_COLUMNS: Final = (
    "backlog_tokens", "backlog_lines", "lines_per_second", "input_tokens_per_second", "output_tokens_per_second",
    "calls", "ttft_p50_ms", "ttft_p95_ms", "workers", "slots", "slots_used",
)  # fmt: skip
_LATENCIES: Final = frozenset({"ttft_p50_ms", "ttft_p95_ms"})
_WRITE = text(f"""
    insert into samples (step, at, model, lane, {", ".join(_COLUMNS)})
    select 10, :at, model, lane, {", ".join(_COLUMNS)}
    from jsonb_to_recordset(cast(:rows as jsonb)) as r(
        model text, lane text, {", ".join(f"{name} float8" for name in _COLUMNS)})
    on conflict (step, model, lane, at) do update set {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS)}""")


def _mean(name: str, ticks: str) -> str:
    """How a column's values become one: a latency is the worst p95 or the mean p50, all else a mean over all ticks."""
    if name in _LATENCIES:
        return f"{'max' if name == 'ttft_p95_ms' else 'avg'}(s.{name})"
    return f"sum(s.{name})::float8 / {ticks}"


_FOLD = text(f"""
    -- The minute that has ended becomes one row of each model and lane, once.
    with ticks as (
        select count(*) as number from samples where step = 10 and model = '' and lane = ''
        and at > :at - interval '60 s' and at <= :at)
    insert into samples (step, at, model, lane, {", ".join(_COLUMNS)})
    select 60, :at, s.model, s.lane, {", ".join(_mean(name, "ticks.number") for name in _COLUMNS)}
    from samples s cross join ticks
    where s.step = 10 and s.at > :at - interval '60 s' and s.at <= :at
      and not exists (select from samples where step = 60 and model = '' and lane = '' and at = :at)
    group by s.model, s.lane, ticks.number
    on conflict do nothing""")
_DELETE_OLD = text("""
    delete from samples where (step, model, lane, at) in (
        select step, model, lane, at from samples
        where step = :step and at < clock_timestamp() - :after order by at limit :limit)""")
_READ = """
    with ticks as (
        select date_bin(:width, at - interval '1 us', :since) as bucket, count(*) as number from samples
        where step = :step and model = '' and lane = '' and at > :since and at <= :until group by 1)
    select t.bucket, s.model, s.lane, {values}
    from samples s join ticks t on t.bucket = date_bin(:width, s.at - interval '1 us', :since)
    where s.step = :step and s.at > :since and s.at <= :until
      and (case when :by_model then s.model <> '' else s.model = :model end)
      and (case when :by_lane then s.lane <> '' else s.lane = :lane end)
    group by t.bucket, t.number, s.model, s.lane order by t.bucket"""


@dataclass(frozen=True)
class TickSample:
    """One model's and lane's numbers of one tick."""

    model: str
    lane: str
    backlog_tokens: float = 0.0
    backlog_lines: float = 0.0
    lines_per_second: float = 0.0
    input_tokens_per_second: float = 0.0
    output_tokens_per_second: float = 0.0
    calls: float = 0.0
    ttft_p50_ms: float | None = None
    ttft_p95_ms: float | None = None
    workers: float = 0.0
    slots: float = 0.0
    slots_used: float = 0.0


SERIES: Final = _COLUMNS
"""What may be read."""


@dataclass(frozen=True)
class Flow:
    """What was recorded of a model's lane."""

    model: str
    lane: str
    lines: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Reading:
    """One bucket of one model and lane: a value for each series that was asked."""

    began: datetime
    model: str
    lane: str
    values: tuple[float | None, ...]


def begin(conn: Connection) -> datetime | None:
    """Begin this tick; None if somebody has written it."""
    return conn.execute(_BEGIN).scalar_one_or_none()


def flow(conn: Connection, at: datetime) -> list[Flow]:
    """What was recorded in the ten seconds before a tick, by model and lane."""
    until = at - _LATE
    rows = conn.execute(_FLOW, {"since": until - timedelta(seconds=10), "until": until})
    return [Flow(**row._mapping) for row in rows]


def write(conn: Connection, at: datetime, found: Sequence[TickSample]) -> None:
    """Write a tick that was begun, and the minute that has ended with it or before it."""
    conn.execute(_WRITE, {"at": at, "rows": json.dumps([asdict(one) for one in found])})
    conn.execute(_FOLD, {"at": at.replace(second=0, microsecond=0)})


def read(
    conn: Connection,
    series: Sequence[str],
    *,
    step: int,
    since: datetime,
    until: datetime,
    width: timedelta,
    model: str | None,
    lane: str | None,
) -> list[Reading]:
    """Values of these series in buckets of `width`; `model` and `lane` '' are all together, None is each apart."""
    assert set(series) <= set(SERIES), series  # names become SQL
    statement = text(_READ.format(values=", ".join(f"{_mean(name, 't.number')} as {name}" for name in series)))
    values = {"step": step, "since": since, "until": until, "width": width, "model": model or "", "lane": lane or ""}
    values |= {"by_model": model is None, "by_lane": lane is None}
    rows = conn.execute(statement, values)
    return [Reading(row[0], row[1], row[2], tuple(row[3:])) for row in rows]


def ticks(conn: Connection, *, step: int, since: datetime, until: datetime, width: timedelta) -> set[datetime]:
    """The buckets in which anything was sampled, by their beginnings."""
    statement = """
        select distinct date_bin(:width, at - interval '1 us', :since) from samples
        where step = :step and model = '' and lane = '' and at > :since and at <= :until"""
    values = {"step": step, "since": since, "until": until, "width": width}
    return set(conn.execute(text(statement), values).scalars())


def delete_old(conn: Connection, *, limit: int) -> int:
    """Delete what is older than its step is kept, at most so many rows of each step; the greater number."""
    return max(
        conn.execute(_DELETE_OLD, {"step": step, "after": after, "limit": limit}).rowcount
        for step, after in STEPS.items()
    )
