"""Slices: their rows, from the plan's cut to done or dropped. The lease protocol is in leases.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, text

from penstock.domain.work.lane import LANES, Lane
from penstock.domain.work.slice import Cut, FoldCut
from penstock.store.accounts.fair_turns import ACCOUNT, IN_TURN, STANDING

_MOST_ACCOUNTS: Final = 32
"""Accounts of a lane that have ready slices at once; by the time those are taken, others were served least."""

_INSERT = text("""
    -- Lane and deadline are copied from the batch, so that a claim reads one index of one table.
    insert into slices (batch, tenant, model, lane, lane_rank, deadline, state, plan_offset, plan_bytes,
                        lines, first_line, last_line, tokens, inline, asked, adapter, ensemble, member, place, fold)
    select b.id, b.tenant, :model, b.lane, :lane_rank, b.deadline, :state, :plan_offset, :plan_bytes,
           :lines, :first_line, :last_line, :tokens, :inline, :asked, :adapter, :ensemble, :member, :place, :fold
    from batches b where b.id = :batch""")

_INSERT_FOLD = text(f"{_INSERT.text} returning id")

_FEED = text(f"""
    -- Each account's best slices of each lane are ready, a few for each live worker; what is ready and no longer among
    -- them is queued again. Accounts are found by skipping from one to the next in the index, so that one's backlog
    -- costs nobody anything (100,000 queued slices of ten tenants: 0.6 ms, of a thousand tenants: 15 ms), and of many
    -- those are fed that were served least. Locked rows are passed over: whoever holds them is closing, claiming or
    -- feeding. Without a live worker nothing changes. Where an account's next slice is a small job's, which are claimed
    -- many at once, so many are ready that all accounts of the lane together fill two claims of each worker.
    with recursive live as (
        select count(*) as workers from workers
        where kind = 'gpu' and model = :model and state = 'ready' and seen_at > clock_timestamp() - :gone),
    accounts(rank, account) as (
        select lanes.rank, first.account
        from unnest(cast(:ranks as smallint[])) as lanes(rank)
        cross join lateral (
            select {ACCOUNT} as account from slices s
            where s.model = :model and s.lane_rank = lanes.rank and s.state in ('queued', 'ready') and not s.held
            order by {ACCOUNT} limit 1) first
        where exists (select from live where workers > 0)
        union all
        select a.rank, next.account
        from accounts a
        cross join lateral (
            select {ACCOUNT} as account from slices s
            where s.model = :model and s.lane_rank = a.rank and s.state in ('queued', 'ready') and not s.held
              and {ACCOUNT} > a.account
            order by {ACCOUNT} limit 1) next),
    ranked as (
        select a.rank, a.account,
               row_number() over (partition by a.rank order by {IN_TURN}) as place,
               case when head.small
                   then greatest(:ahead, 2 * :lines / least(:accounts, count(*) over (partition by a.rank)))
                   else :ahead end as ahead
        from accounts a
        cross join lateral (
            select s.deadline, s.id, s.inline is not null as small from slices s
            where s.model = :model and s.lane_rank = a.rank and s.state in ('queued', 'ready') and not s.held
              and {ACCOUNT} = a.account
            order by s.deadline, s.id limit 1) head {STANDING}),
    best as materialized (
        select pick.id, pick.state
        from ranked
        cross join lateral (
            select s.id, s.state from slices s join batches b on b.id = s.batch
            where s.model = :model and s.lane_rank = ranked.rank and {ACCOUNT} = ranked.account
              and s.state in ('queued', 'ready') and not s.held and b.state = 'in_progress' and b.finish_as is null
            order by s.deadline, s.id
            limit (select workers from live) * ranked.ahead) pick
        where ranked.place <= :accounts),
    better as (
        -- An array: joined with `best` the planner scans the whole table.
        select s.id from slices s
        where s.id = any(array(select id from best where state = 'queued')) and s.state = 'queued' and not s.held
        for no key update of s skip locked),
    worse as (
        select s.id from slices s
        where s.model = :model and s.state = 'ready' and s.lane_rank = any(cast(:ranks as smallint[]))
          and exists (select from live where workers > 0)
          and not exists (select from best where best.id = s.id)
        for no key update of s skip locked),
    demoted as (
        update slices s set state = 'queued' where s.id = any(array(select id from worse)) and s.state = 'ready')
    update slices s set state = 'ready', ready_at = clock_timestamp()
    where s.id = any(array(select id from better)) and s.state = 'queued'
    returning s.lane_rank, case when s.inline is not null then s.lines end as small_lines""")

_STALE = text("""
    -- Ready slices that nobody took for a while: their hint may be lost.
    update slices set ready_at = clock_timestamp()
    where id in (select id from slices where state = 'ready' and ready_at < clock_timestamp() - :again
                 order by ready_at limit :limit for no key update skip locked)
    returning model, lane_rank, case when inline is not null then lines end as small_lines""")

_BACKLOG_MODELS = text("""
    -- From one model to the next in the index.
    with recursive models(model) as (
        (select model from slices where state in ('queued', 'ready') and not held order by model limit 1)
        union all
        select next.model from models m cross join lateral (
            select s.model from slices s
            where s.state in ('queued', 'ready') and not s.held and s.model > m.model order by s.model limit 1) next)
    select model from models""")

_DROP = text("""
    -- Closing drops what nobody runs; a slice that is claimed at this moment is seen as running after the wait. A fold
    -- goes on with what its members said, of a paused batch too: that is for folds.py.
    update slices set held = held and model is not null,
                      state = case when model is null and ensemble is not null then state else 'dropped' end
    where batch = :batch
      and (state in ('queued', 'ready') or state = 'waiting' and (model is not null or held))""")

_HOLD = text("""
    -- Pausing: nothing of the batch is fed or claimed until it resumes, and what a holder gives back meanwhile stays.
    -- Ready ones leave their lists; a slice that is claimed at this moment is seen as running after the wait.
    update slices set held = true, state = case when state = 'ready' then 'queued' else state end
    where batch = :batch and state in ('waiting', 'queued', 'ready', 'running')""")

_UNHOLD = text("""
    update slices set held = false
    where batch = :batch and held and state in ('waiting', 'queued', 'ready', 'running')""")

_MOVE = text("""
    -- A new lane or deadline: what runs keeps its hand, and goes by the new ones should it be given back. What is ready
    -- in the old lane is fed, and hinted, anew.
    update slices set
        lane = coalesce(cast(:lane as text), lane), lane_rank = coalesce(cast(:rank as smallint), lane_rank),
        promoted = promoted and cast(:rank as smallint) is null,
        deadline = coalesce(cast(:deadline as timestamptz), deadline),
        state = case when state = 'ready' and lane_rank <> cast(:rank as smallint) then 'queued' else state end
    where batch = :batch and state in ('waiting', 'queued', 'ready', 'running')""")

_WITH_OPEN = text("""
    select distinct batch from slices
    where batch = any(cast(:batches as text[])) and state in ('queued', 'ready', 'running')
    union
    select distinct batch from slices
    where batch = any(cast(:batches as text[])) and state = 'waiting' and model is null""")

_BACKLOG = text("""
    select model, lane, state, count(*)::int as slices, sum(lines)::bigint as lines, sum(tokens)::bigint as tokens
    from slices where state in ('queued', 'ready', 'running') and model is not null group by 1, 2, 3""")

_UNREADABLE = text("""
    update slices set unreadable = unreadable + 1 where id = :id and lease = :lease returning unreadable""")


_OF_CUT: Final = (
    "model", "plan_offset", "plan_bytes", "lines", "first_line", "last_line", "tokens", "asked", "adapter", "ensemble",
    "member", "place",
)  # fmt: skip


def insert(
    conn: Connection, batch: str, cuts: Iterable[Cut | FoldCut], lane: Lane, inline: bytes | None = None
) -> None:
    """Insert the plan's cuts as queued slices; `inline` holds the lines of an inline job.

    Of an ensemble that gathers the fold waits, and the members that it may ask later.
    """
    of_batch = {"batch": batch, "lane_rank": lane.rank, "inline": inline, "fold": None}
    rows = []
    for cut in cuts:
        if isinstance(cut, FoldCut):
            first = cut.members[0]
            nobody = {"model": None, "member": None, "place": None, "asked": None, "adapter": None, "tokens": 0}
            fold = conn.execute(_INSERT_FOLD, of_batch | _row(first) | nobody | {"state": "waiting"}).scalar_one()
            rows += [of_batch | _row(member) | {"fold": fold} for member in cut.members]
        else:
            rows.append(of_batch | _row(cut))
    if rows:
        conn.execute(_INSERT, rows)


def _row(cut: Cut) -> dict[str, object]:
    return {name: getattr(cut, name) for name in _OF_CUT} | {"state": "waiting" if cut.waits else "queued"}


def feed(conn: Connection, model: str, *, ahead: int, lines: int, gone: timedelta) -> list[Lane]:
    """Make each account's best slices ready, and only those; the lanes of the hints to say, most urgent first.

    `lines` of small jobs are claimed at once.
    """
    values = {"model": model, "ahead": ahead, "lines": lines, "gone": gone, "ranks": [lane.rank for lane in LANES]}
    rows = conn.execute(_FEED, values | {"accounts": _MOST_ACCOUNTS})
    return [lane for _, lane in _hints(((model, row.lane_rank, row.small_lines) for row in rows), lines)]


def _hints(fed: Iterable[tuple[str, int, int | None]], lines: int) -> list[tuple[str, Lane]]:
    """Model and lane of each hint to say: one a slice, and one for as many small jobs as a claim takes at once."""
    hints, small = [], Counter[tuple[int, str]]()
    for model, rank, small_lines in fed:
        if small_lines is None:
            hints.append((rank, model))
        else:
            small[rank, model] += small_lines
    hints += [(rank, model) for (rank, model), total in small.items() for _ in range(-(-total // lines))]
    return [(model, LANES[rank]) for rank, model in sorted(hints)]


def stale(conn: Connection, *, lines: int, again: timedelta, limit: int) -> list[tuple[str, Lane]]:
    """Model and lane of the hints for ready slices whose hint is old; they count as hinted from now on."""
    rows = conn.execute(_STALE, {"again": again, "limit": limit})
    return _hints(((row.model, row.lane_rank, row.small_lines) for row in rows), lines)


def backlog_models(conn: Connection) -> list[str]:
    """Models that have slices which wait."""
    return [row.model for row in conn.execute(_BACKLOG_MODELS)]


def drop(conn: Connection, batch: str) -> int:
    """Drop the queued and ready slices of a closing batch that the caller has locked; how many there were."""
    return conn.execute(_DROP, {"batch": batch}).rowcount


def hold(conn: Connection, batch: str) -> int:
    """Keep the open slices of a locked batch from being fed and claimed; how many there are."""
    return conn.execute(_HOLD, {"batch": batch}).rowcount


def unhold(conn: Connection, batch: str) -> int:
    """Let the open slices of a locked batch be fed again; how many were held."""
    return conn.execute(_UNHOLD, {"batch": batch}).rowcount


def move(conn: Connection, batch: str, lane: Lane | None, deadline: datetime | None) -> int:
    """Give the open slices of a locked batch another lane or deadline (None: as it is); how many there are."""
    rank = None if lane is None else lane.rank
    return conn.execute(_MOVE, {"batch": batch, "lane": lane, "rank": rank, "deadline": deadline}).rowcount


def with_open(conn: Connection, batches: Sequence[str]) -> set[str]:
    """Those of the batches of which a slice is still open, or a fold. They must be locked by an earlier statement."""
    return {row.batch for row in conn.execute(_WITH_OPEN, {"batches": list(batches)})}


def backlog(conn: Connection) -> list[tuple[str, str, str, int, int, int]]:
    """Open slices by model, lane and state: (model, lane, state, slices, lines, tokens). For metrics."""
    return [tuple(row) for row in conn.execute(_BACKLOG)]


def count_unreadable(conn: Connection, id: int, lease: int) -> int:
    """Count that the holder could not read this slice's lines; how often that happened, 0 if the lease is lost."""
    return conn.execute(_UNREADABLE, {"id": id, "lease": lease}).scalar() or 0
