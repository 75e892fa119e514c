"""Leases: who may write results for a slice, and until when. Those of whole batches are in batch_leases.py.

A lease's id only ever grows: it is the fencing token. A slice is running if and only if it names its lease.
Only the database's clock decides. Every statement may be repeated with the same key: claims by nonce, settles by lease.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Row, text

from penstock.domain.adapter import Adapter
from penstock.domain.ensembles.ensemble import ChosenMember
from penstock.domain.reuse import CacheMode, Reuse
from penstock.domain.work.batch import BatchState
from penstock.domain.work.fold_claim import FoldClaim
from penstock.domain.work.lane import LANES, Lane
from penstock.domain.work.lease import LeaseOrder
from penstock.domain.work.slice import Claim
from penstock.domain.work.suspicion import GUILTY_DEATHS
from penstock.store.accounts import fair_turns
from penstock.store.accounts.fair_turns import ACCOUNT, OWNER, FairTurn
from penstock.store.models import ensembles
from penstock.store.work import folds

_NOBODY: Final[Mapping[Lane, Collection[str]]] = MappingProxyType({})

RIDES: Final = """
    (s.inline is not null and s.crashes = 0 and s.unreadable = 0
     and not exists (select from suspects p where p.slice = s.id))"""
"""A small job's slice that may share a hand: with suspects, or after its holder fell silent, it is claimed alone."""

_IS_FOLD: Final = "s.ensemble is not null and s.member is null"
"""It goes back to waiting, though its batch is closing: what its members said is its batch's all the same."""

_CLAIM = text(f"""
    -- Take the best ready slice of the first account whose turn it is. Rows that others lock are passed over; of those
    -- that nobody locks, one is locked: the next account is only looked at if the one before has none left.
    -- A nonce that was used opens nothing (on conflict): then the next statement finds what it got.
    with best as (
        select pick.*
        from (select * from unnest(cast(:ranks as smallint[]), cast(:accounts as text[]))
                  with ordinality as turns(rank, account, place) order by place) turn
        cross join lateral (
            select s.id, s.batch, turn.place from slices s
            where s.model = :model and s.lane_rank = turn.rank and s.state = 'ready' and {ACCOUNT} = turn.account
              and not s.held
              and (s.lane_rank, {OWNER}) not in (
                  select * from unnest(cast(:full_ranks as smallint[]), cast(:full_accounts as text[])))
            order by s.deadline, s.id limit 1
            for no key update of s skip locked) pick
        limit 1),
    opened as (
        insert into leases (kind, slice, batch, holder, nonce, expires_at)
        select 'slice', id, batch, :holder, :nonce, clock_timestamp() + :ttl from best
        on conflict (nonce) do nothing
        returning id, slice)
    update slices s set state = 'running', lease = opened.id from opened, best
    where s.id = opened.slice and best.id = s.id
    returning best.place, s.lines, s.tokens * (s.lines - s.completed - s.failed) / s.lines::float8 as tokens,
              {RIDES} as rides""")

_COMPANY = text(f"""
    -- Further small slices of the lane ride along with the first, as many as fit: those that would be claimed next, one
    -- by one. Each one's start tag is its account's plus what goes before it there; none overtakes a slice of its own
    -- account that can't ride. What others lock is passed over. Their nonces come from the claim's.
    with turns as (
        select * from unnest(cast(:accounts as text[]), cast(:starts as float8[]), cast(:weights as float8[]))
            with ordinality as turns(account, start, weight, place)),
    next as (
        select pick.*, turn.place, turn.start + coalesce(sum(pick.tokens / turn.weight) over (
                   account rows between unbounded preceding and 1 preceding), 0) as tag,
               every(pick.rides) over (account rows unbounded preceding) as rides_up_to_here
        from turns turn
        cross join lateral (
            select s.id, s.deadline, s.lines, {RIDES} as rides, greatest(
                       1, s.tokens * (s.lines - s.completed - s.failed) / s.lines::float8) as tokens
            from slices s
            where s.model = :model and s.lane_rank = :rank and s.state = 'ready' and {ACCOUNT} = turn.account
              and not s.held and {OWNER} <> all(cast(:full_accounts as text[]))
            order by s.deadline, s.id limit :lines) pick
        window account as (partition by turn.account order by pick.deadline, pick.id)),
    fitting as (
        select id, place, tag, tokens from (
            select next.*, sum(lines) over so_far as lines_so_far, sum(tokens) over so_far as tokens_so_far
            from next where rides_up_to_here
            window so_far as (order by tag, deadline, id rows unbounded preceding)) counted
        where lines_so_far <= :lines and tokens_so_far <= :tokens),
    free as (
        select s.id, s.batch from slices s
        where s.id = any(array(select id from fitting)) and s.state = 'ready' and not s.held
        for no key update of s skip locked),
    opened as (
        insert into leases (kind, slice, batch, holder, nonce, expires_at)
        select 'slice', free.id, free.batch, :holder,
               cast(md5(:nonce || ':' || row_number() over (order by fitting.tag, free.id)) as uuid),
               clock_timestamp() + :ttl
        from free join fitting on fitting.id = free.id
        order by fitting.tag, free.id
        returning id, slice)
    update slices s set state = 'running', lease = opened.id from opened, fitting
    where s.id = opened.slice and fitting.id = s.id
    returning fitting.place, fitting.tag, fitting.tokens""")

_CLAIMED = text("""
    -- A statement of its own: one combined with the claim would read segments from before the wait for the lock.
    select s.id, l.id as lease, s.batch, s.tenant, b.endpoint, s.model, s.lane_rank, s.deadline, s.tokens,
           coalesce(s.plan_key, b.plan_key) as plan_key,
           s.plan_offset, s.plan_bytes, s.inline, s.lines, s.first_line, s.last_line, s.crashes, s.asked,
           s.adapter, a.digest as adapter_digest, s.ensemble, s.member, s.place, s.picked, s.fold, e.version,
           e.definition,
           b.dedup, coalesce(b.cache, case when t.cache then 'on' else 'off' end) as cache, b.cache_ttl_seconds,
           (select array_agg(line) from segments g, unnest(g.lines) as line where g.slice = s.id) as recorded,
           (select array_agg(array[p.line, p.deaths]) from suspects p where p.slice = s.id) as suspects
    from leases l join slices s on s.id = l.slice and s.lease = l.id join batches b on b.id = s.batch
        join tenants t on t.id = s.tenant left join model_versions a on a.queue = s.adapter
        left join ensembles e on e.id = s.ensemble
    where l.nonce = any(array(
        select case number when 0 then cast(:nonce as uuid) else cast(md5(:nonce || ':' || number) as uuid) end
        from generate_series(0, cast(:company as int)) as number))
    order by l.id""")

_CLAIM_FOLD = text(f"""
    with free as (
        select s.id, s.batch from slices s where s.batch = :batch and {folds.DUE}
        order by s.id limit 1 for no key update of s skip locked),
    opened as (
        insert into leases (kind, slice, batch, holder, nonce, expires_at)
        select 'slice', id, batch, :holder, :nonce, clock_timestamp() + :ttl from free
        on conflict (nonce) do nothing
        returning id, slice)
    update slices s set state = 'running', lease = opened.id from opened where s.id = opened.slice""")

_BEAT = text("""
    -- One statement for each process: what it names lives on; what it holds unnamed since before its last beat
    -- was forgotten (a claim whose answer was lost, a dead thread).
    with self as (
        select beaten_at from workers where id = :holder for no key update),
    beaten as (
        update workers set seen_at = clock_timestamp(), beaten_at = clock_timestamp() where id = :holder),
    mine as (
        select id, batch, opened_at, id = any(cast(:held as bigint[])) as named
        from leases where holder = :holder and closed_at is null order by id for no key update),
    kept as (
        update leases l set expires_at = clock_timestamp() + :ttl from mine where l.id = mine.id and mine.named)
    select mine.id, mine.named, b.finish_as from mine join batches b on b.id = mine.batch
    where mine.named or mine.opened_at < (select beaten_at from self)""")

_SETTLE = text("""
    -- Done, where the lease is still the slice's, and every line is recorded or the batch is closing.
    with given as (
        select * from unnest(cast(:slices as bigint[]), cast(:leases as bigint[])) as given(slice, lease)),
    whole as (
        select s.id, s.lease from slices s join given on given.slice = s.id join batches b on b.id = s.batch
        where s.id = any(cast(:slices as bigint[])) and s.state = 'running' and s.lease = given.lease
          and (s.completed + s.failed = s.lines or b.finish_as is not null)
        order by s.id for no key update of s),
    done as (
        update slices s set state = 'done', lease = null, done_at = clock_timestamp() from whole where s.id = whole.id)
    update leases l set closed_at = clock_timestamp(), closed_as = 'settled' from whole
    where l.id = whole.lease and l.closed_at is null
    returning l.id""")

_SHUT = text("""
    update leases set closed_at = clock_timestamp(), closed_as = :how where id = :lease and closed_at is null""")

_SETTLED_BEFORE = text("select id from leases where id = any(cast(:leases as bigint[])) and closed_as = 'settled'")

_GIVE_BACK = text(f"""
    -- Queued again, or dropped if the batch is closing (the caller has locked it), without a penalty.
    update slices s set lease = null, state = case when {_IS_FOLD} then 'waiting' when b.finish_as is null then 'queued'
                                              else 'dropped' end
    from leases l, batches b
    where l.id = :lease and s.id = l.slice and s.lease = l.id and s.state = 'running' and b.id = s.batch
    returning s.id""")

_GIVE_BACK_BATCH = text("""
    update batches b set lease = null, hinted_at = null from leases l
    where l.id = :lease and b.id = l.batch and b.lease = l.id""")

_UNTRIED = text("""
    update suspects set trial = null
    where trial = :lease and slice = (select slice from leases where id = :lease)""")

_OPEN = text("select kind, count(*)::int as open from leases where closed_at is null group by kind")
_LEASE = text("select batch from leases where id = :lease and closed_at is null")

_SILENT = text("""
    select distinct batch from leases where closed_at is null and expires_at <= clock_timestamp() limit :limit""")

_REAP = text(f"""
    -- Give back what silent holders held; the database's clock decides, and a beat that came meanwhile saves its lease:
    -- the lock on the lease's row makes this statement look again. The caller has locked the batch.
    with silent as (
        select id, slice from leases
        where batch = :batch and closed_at is null and expires_at <= clock_timestamp()
        order by id for no key update),
    freed as (
        update slices s set state = case when {_IS_FOLD} then 'waiting' when b.finish_as is null then 'queued'
                                    else 'dropped' end,
                            lease = null, crashes = s.crashes + 1
        from silent, batches b
        where s.id = silent.slice and s.lease = silent.id and s.state = 'running' and b.id = s.batch),
    freed_batch as (
        update batches b set lease = null, hinted_at = null from silent where b.id = :batch and b.lease = silent.id)
    update leases l set closed_at = clock_timestamp(), closed_as = 'reaped' from silent where l.id = silent.id
    returning l.id""")

_CHARGE_TRIALS = text("""
    -- What a silent holder was asking on trial may have taken worker and engine down together. A statement of its own,
    -- after the slices' rows are locked: it sees a note that was committed meanwhile, and takes the rows in that order.
    update suspects set deaths = least(:guilty, deaths + 1), trial = null
    where trial = any(cast(:leases as bigint[]))""")


def claim(
    conn: Connection,
    model: str,
    lanes: Sequence[Lane],
    *,
    holder: UUID,
    nonce: UUID,
    ttl: timedelta,
    promoted_share: float,
    full: Mapping[Lane, Collection[str]] = _NOBODY,
    lines: int = 1,
    tokens: int = 0,
) -> list[Claim]:
    """Take the best ready slice under a new lease, and small ones beside it; empty if there is none.

    Small slices are taken up to so many lines and tokens in all, each under a lease of its own. Repeating a nonce gives
    the same claims. In the lanes of `full` the accounts named are passed over.
    """
    turns = fair_turns.turns(conn, model, lanes, promoted_share=promoted_share)
    passed = [(lane.rank, account) for lane, accounts in full.items() for account in accounts]
    values = {
        "model": model,
        "ranks": [turn.rank for turn in turns],
        "accounts": [turn.account for turn in turns],
        "full_ranks": [rank for rank, _ in passed],
        "full_accounts": [account for _, account in passed],
        "holder": holder,
        "nonce": nonce,
        "ttl": ttl,
    }
    taken = conn.execute(_CLAIM, values).first()
    if taken is not None:  # a repeated nonce takes nothing, and pays nothing
        first = turns[taken.place - 1]
        cost = max(1.0, taken.tokens)
        # First, for it locks the lane's clock: whoever looks for company meanwhile waits, and finds what is left.
        fair_turns.charge(conn, model, {first: cost}, first.start)
        if taken.rides and lines > taken.lines:
            beside = [_paid(turn, cost) if turn == first else turn for turn in turns if turn.rank == first.rank]
            left = {"lines": lines - taken.lines, "tokens": tokens - cost}
            whole = [account for rank, account in passed if rank == first.rank]
            _take_company(
                conn, beside, left | values | {"rank": first.rank, "full_accounts": whole, "nonce": str(nonce)}
            )
    rows = conn.execute(_CLAIMED, {"nonce": str(nonce), "company": lines - 1})
    return [_claim(row) for row in rows]


def _paid(turn: FairTurn, tokens: float) -> FairTurn:
    return replace(turn, start=turn.start + tokens / turn.weight)


def _take_company(conn: Connection, turns: Sequence[FairTurn], values: Mapping[str, Any]) -> None:
    """Claim small slices of one lane beside a first, and charge their accounts."""
    asked = {
        "accounts": [turn.account for turn in turns],
        "starts": [turn.start for turn in turns],
        "weights": [turn.weight for turn in turns],
    }
    taken = conn.execute(_COMPANY, {**values, **asked}).all()
    served: dict[FairTurn, float] = {}
    for row in taken:
        turn = turns[row.place - 1]
        served[turn] = served.get(turn, 0.0) + row.tokens
    if served:
        fair_turns.charge(conn, values["model"], served, max(row.tag for row in taken))


def _claim(row: Row[Any]) -> Claim:
    return Claim(
        slice=row.id,
        lease=row.lease,
        batch=row.batch,
        tenant=row.tenant,
        endpoint=row.endpoint,
        model=row.model or "",
        lane=LANES[row.lane_rank],
        deadline=row.deadline,
        tokens=row.tokens,
        plan_key=row.plan_key,
        plan_offset=row.plan_offset,
        plan_bytes=row.plan_bytes,
        inline=None if row.inline is None else bytes(row.inline),
        lines=row.lines,
        first_line=row.first_line,
        last_line=row.last_line,
        recorded=frozenset(row.recorded or ()),
        suspects=dict(row.suspects or ()),
        crashes=row.crashes,
        reuse=Reuse(row.dedup, CacheMode(row.cache), row.cache_ttl_seconds),
        asked=row.asked,
        adapter=Adapter(row.adapter, row.adapter_digest) if row.adapter else None,
        chosen=_chosen(row),
        is_fold=row.ensemble is not None and row.member is None,
        picked=None if row.picked is None else frozenset(row.picked),
    )


def _chosen(row: Row[Any]) -> ChosenMember | None:
    if row.member is None:
        return None
    gathered = row.fold is not None
    return ensembles.chosen(row.ensemble, row.version, row.definition, row.member, row.place, gathered=gathered)


def claim_fold(conn: Connection, batch: str, *, holder: UUID, nonce: UUID, ttl: timedelta) -> FoldClaim | None:
    """Take the batch's next fold whose members are all settled or gone; None if there is none that is free."""
    conn.execute(_CLAIM_FOLD, {"batch": batch, "holder": holder, "nonce": nonce, "ttl": ttl})
    row = conn.execute(_CLAIMED, {"nonce": str(nonce), "company": 0}).first()
    if row is None:
        return None
    return FoldClaim(_claim(row), ensembles.definition(row.definition), row.version)


def beat(conn: Connection, held: list[int], *, holder: UUID, ttl: timedelta) -> list[LeaseOrder]:
    """Prolong the leases that are named. A named lease that is missing from the answer is lost."""
    rows = conn.execute(_BEAT, {"held": held, "holder": holder, "ttl": ttl})
    return [LeaseOrder(row.id, row.named, BatchState(row.finish_as) if row.finish_as else None) for row in rows]


def settle(conn: Connection, held: Sequence[tuple[int, int]]) -> set[int]:
    """Mark slices (each with its lease) done; the leases that are settled. Their batches must be locked.

    A lease that is missing is lost, or not all of its slice's lines are recorded. May be repeated.
    """
    values = {"slices": [slice for slice, _ in held], "leases": [lease for _, lease in held]}
    settled = {row.id for row in conn.execute(_SETTLE, values)}
    if len(settled) < len(held):
        settled |= {row.id for row in conn.execute(_SETTLED_BEFORE, values)}
    return settled


def shut(conn: Connection, lease: int, how: str) -> None:
    """Close an open lease: `settled`, if its work is committed in this transaction, `released` or `forgotten`."""
    conn.execute(_SHUT, {"lease": lease, "how": how})


def batch_of(conn: Connection, lease: int) -> str | None:
    """The batch of an open lease, so that it can be locked first."""
    row = conn.execute(_LEASE, {"lease": lease}).first()
    return row.batch if row else None


def give_back(conn: Connection, lease: int, how: str) -> None:
    """Free what an open lease holds, without penalty: `released` by its holder or `forgotten` by it."""
    conn.execute(_GIVE_BACK, {"lease": lease})
    conn.execute(_GIVE_BACK_BATCH, {"lease": lease})
    conn.execute(_UNTRIED, {"lease": lease})
    shut(conn, lease, how)


def silent_batches(conn: Connection, *, limit: int) -> list[str]:
    """Batches that have a lease whose holder fell silent."""
    return [row.batch for row in conn.execute(_SILENT, {"limit": limit})]


def reap(conn: Connection, batch: str) -> int:
    """Free everything of the locked batch whose lease is past its time; how many leases that were."""
    reaped = [row.id for row in conn.execute(_REAP, {"batch": batch})]
    if reaped:
        conn.execute(_CHARGE_TRIALS, {"leases": reaped, "guilty": GUILTY_DEATHS})
    return len(reaped)


def open_count(conn: Connection) -> dict[str, int]:
    """How many leases of each kind are open. For metrics."""
    counts: dict[str, int] = {row.kind: row.open for row in conn.execute(_OPEN)}
    return counts
