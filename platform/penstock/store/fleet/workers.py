"""Workers: processes that do work, each start with a new id; they are live while they beat."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Row, text

from penstock.domain.engine_trouble import EngineTrouble
from penstock.domain.engines import engine_report
from penstock.domain.fleet.worker import Worker, WorkerOrders, WorkerPace, WorkerView

_REGISTER = text("""
    insert into workers (id, kind, model, state, slots, host, pid, version, engine, lacks, pool, device)
    values (:id, :kind, :model, :state, :slots, :host, :pid, :version, :engine, :lacks, :pool, :device)
    on conflict (id) do nothing""")
_MARK = text("""
    -- A process that ends stays so: what was said before that may arrive after it.
    update workers set state = :state, failed_starts = :failed_starts, engine_trouble = :trouble,
        seen_at = clock_timestamp()
    where id = :id and (state in ('starting', 'ready', 'drained') or :state = 'gone')""")
_SEEN = text("update workers set seen_at = clock_timestamp() where id = :id")
_LIVE = text("""
    select id, kind, model, state, slots, host, pid, failed_starts, engine_trouble from workers
    where state <> 'gone' and seen_at > clock_timestamp() - :gone
    order by kind, model, started_at""")
_PACES = text("""
    -- How fast a model's live workers are; one that has not measured itself yet counts as the mean of the others.
    select model, count(*)::int as workers, avg(nullif(tokens_per_second, 0))::float8 as tokens_per_second,
        sum(case when budget > 0 then budget else slots end)::int as lines_at_once
    from workers
    where kind = 'gpu' and model = any(cast(:models as text[])) and state = 'ready'
      and seen_at > clock_timestamp() - :gone
    group by model""")
_VIEW = """
    select w.id, w.kind, w.model, w.serves, w.state, w.host, w.pid, w.region, w.version, w.started_at, w.seen_at,
           extract(epoch from clock_timestamp() - w.seen_at)::float8 as seen_seconds,
           extract(epoch from clock_timestamp() - w.beaten_at)::float8 as beat_seconds,
           w.slots, w.calls, w.lines, w.budget, w.tokens_per_second, w.failed_starts, w.engine_trouble,
           w.drain, w.restarts_asked, w.restarts_done, w.engine, w.lacks, w.device,
           w.budget_reason, w.engine_report,
           (select count(*)::int from leases l where l.holder = w.id and l.closed_at is null) as leases
    from workers w"""
_FIND = text(f"{_VIEW} where w.id = :id")
_PLACE: Final = "w.kind, coalesce(w.model, ''), w.started_at, w.id"
_PAGE = text(f"""{_VIEW}
    where (:gone or w.state <> 'gone')
      and (cast(:after as uuid) is null or ({_PLACE}) > (select {_PLACE} from workers w where w.id = :after))
    order by {_PLACE} limit :limit""")
_FORGET = text("""
    -- A process that did not say goodbye stays in the list as gone for a day, then its row goes.
    delete from workers where seen_at < clock_timestamp() - interval '1 day'""")


def register(
    conn: Connection,
    id: UUID,
    *,
    kind: str,
    model: str | None,
    state: str,
    slots: int,
    host: str,
    pid: int,
    version: str,
    engine: str = "",
    lacks: Sequence[str] = (),
    pool: str | None = None,
    device: str = "",
) -> None:
    """Enter a process that starts, once; `host` is for people, the id is the identity."""
    values = {"id": id, "kind": kind, "model": model, "state": state, "slots": slots, "host": host, "pid": pid}
    values |= {"version": version, "engine": engine, "lacks": list(lacks), "pool": pool, "device": device}
    conn.execute(_REGISTER, values)


def mark(conn: Connection, id: UUID, state: str, trouble: EngineTrouble | None = None) -> None:
    """Say that a process is ready, drained, draining, starting again (and why it has to), or gone."""
    failed_starts, why = (trouble.failed_starts, trouble.why) if trouble else (0, None)
    conn.execute(_MARK, {"id": id, "state": state, "failed_starts": failed_starts, "trouble": why})


def seen(conn: Connection, id: UUID) -> None:
    """Note that a process without leases is alive."""
    conn.execute(_SEEN, {"id": id})


def live(conn: Connection, *, gone: timedelta) -> list[Worker]:
    """Processes that beat within the last while."""
    return [Worker(**row._mapping) for row in conn.execute(_LIVE, {"gone": gone})]


def paces(conn: Connection, models: list[str], *, gone: timedelta) -> dict[str, WorkerPace]:
    """How fast those of these models are that live workers serve."""
    rows = conn.execute(_PACES, {"models": models, "gone": gone})
    return {row.model: WorkerPace(row.workers, row.tokens_per_second, row.lines_at_once) for row in rows}


def find(conn: Connection, id: UUID) -> WorkerView | None:
    """One process as an operator sees it; None if there is none, or it is long gone."""
    row = conn.execute(_FIND, {"id": id}).first()
    return _view(row) if row else None


def page(conn: Connection, *, gone: bool, after: UUID | None, limit: int) -> list[WorkerView]:
    """All processes by kind, model and start, after the one named; `gone`: those that have ended, too."""
    return [_view(row) for row in conn.execute(_PAGE, {"gone": gone, "after": after, "limit": limit})]


def _view(row: Row[Any]) -> WorkerView:
    values = dict(row._mapping)
    orders = WorkerOrders(values.pop("drain"), values.pop("restarts_asked"))
    values |= {"serves": tuple(row.serves), "lacks": tuple(row.lacks)}
    values["engine_report"] = engine_report.read(row.engine_report)
    return WorkerView(**values, orders=orders)


def forget(conn: Connection) -> int:
    """Delete the rows of processes that were last seen a day ago."""
    return conn.execute(_FORGET).rowcount
