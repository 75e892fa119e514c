"""Folds: the slices that make one answer of what an ensemble's members said; due when no member of theirs is at work.

A fold waits, is claimed, and is done; or it lets later members be asked for some of its lines, and waits again. All of
that is under its lease, so no line is asked of a member twice. Whoever ends a member's slice has locked its batch, so
that the last one's transaction knows itself, and marks the fold: nobody looks for due folds among all that wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Row, text

from penstock.domain.ensembles.ensemble import EnsembleDefinition
from penstock.domain.work.fold_claim import FoldRead
from penstock.domain.work.segment import Segment
from penstock.store.models import ensembles

_AT_WORK: Final = """
    exists (select from slices m where m.fold = s.id and m.state in ('queued', 'ready', 'running'))"""
DUE: Final = "s.due and s.state = 'waiting' and not s.held"
"""A fold `s` that may be claimed."""

_END_OF = text(f"""
    update slices s set due = true
    where s.id in (select fold from slices where id = any(cast(:slices as bigint[])) and fold is not null)
      and s.state = 'waiting' and not s.due and not {_AT_WORK}
    returning s.batch""")
_END_IN = text(f"""
    update slices s set due = true
    where s.batch = :batch and s.state = 'waiting' and s.model is null and not s.due and not {_AT_WORK}""")
_DUE_IN = text(f"""
    select distinct s.batch from slices s where s.batch = any(cast(:batches as text[])) and {DUE}""")
_SOME_DUE = text(f"""
    select b.id from batches b where b.id in (select s.batch from slices s where {DUE})
    order by b.deadline limit :limit""")
_UNHINTED = text(f"""
    -- Those of which nobody was told lately.
    update batches set hinted_at = clock_timestamp()
    where id in (
        select b.id from batches b
        where b.id in (select s.batch from slices s where {DUE})
          and (b.hinted_at is null or b.hinted_at < clock_timestamp() - :again)
        order by b.deadline limit :limit for no key update skip locked)
    returning id""")

_DROP = text("""
    -- Of a closing batch: folds of which no member has said anything, or that can't be made.
    update slices s set state = 'dropped'
    where s.batch = :batch and s.state = 'waiting' and s.due
      and (:failed or not exists (select from slices m where m.fold = s.id and m.completed + m.failed > 0))""")

_MEMBERS = text("""
    select m.place, m.model, m.state = 'waiting' as waits, m.picked, b.finish_as is not null as closing
    from slices m join batches b on b.id = m.batch where m.fold = :fold order by m.place""")
_SEGMENTS = text("""
    select s.place, g.id, g.slice, g.blob_key, g.data, g.bytes, g.lines, g.failed_lines
    from slices s join segments g on g.slice = s.id where s.fold = :fold order by s.place, g.id""")

_OF_BATCH = text("""
    select s.id, e.definition from slices s join ensembles e on e.id = s.ensemble
    where s.batch = :batch and s.model is null and s.id > :after order by s.id limit :limit""")

_ASK = text("""
    -- Only its holder; and only members that nobody has asked yet.
    with mine as (
        select id from slices where id = :slice and state = 'running' and lease = :lease for no key update),
    given as (
        select * from unnest(cast(:places as smallint[]), cast(:picked as text[]), cast(:keys as text[]),
                             cast(:bytes as bigint[])) as given(place, picked, plan_key, plan_bytes)),
    asked as (
        update slices m set state = 'queued', picked = cast(given.picked as int[]),
            lines = cardinality(cast(given.picked as int[])), released_at = clock_timestamp(),
            plan_key = given.plan_key, plan_bytes = coalesce(given.plan_bytes, m.plan_bytes),
            plan_offset = case when given.plan_key is null then m.plan_offset else 0 end,
            tokens = greatest(1, m.tokens * cardinality(cast(given.picked as int[])) / m.lines)
        from given, mine where m.fold = mine.id and m.place = given.place and m.state = 'waiting'),
    back as (
        -- A wave further: what befell its holders before counts no more.
        update slices s set state = 'waiting', lease = null, crashes = 0, unreadable = 0, due = false
        from mine where s.id = mine.id)
    update leases l set closed_at = clock_timestamp(), closed_as = 'settled' from mine
    where l.id = :lease and l.closed_at is null returning l.id""")
_VOTED = text("select agreed, agreement from slices where id = :slice")
_AGREE = text("""
    update slices set agreement = :agreement, agreed = :agreed where id = :slice and agreed < :agreed""")
_WITH_KEYS = text("""
    select plan_key from slices where fold = :fold and plan_key = any(cast(:keys as text[]))""")
_ASKED_BEFORE = text("select 1 from leases where id = :lease and closed_as = 'settled'")
_UNASKED = text("""
    -- The fold is settled: later members are not asked any more.
    update slices set state = 'dropped'
    where fold = any(cast(:slices as bigint[])) and state = 'waiting'""")

_REPLACEABLE: Final = """
    -- Of a route nobody answers in the place of the member that its rules chose: only its classifier is passed over,
    -- which is asked all lines.
    (s.picked is null or cast(e.definition as json) ->> 'kind' <> 'route')"""
_WAITS = text(f"""
    -- Members' slices that wait while nobody serves their model, by batch and model, with how long that is so. A pool
    -- that may serve it wakes it in its time.
    select s.batch, s.model, e.definition,
           extract(epoch from clock_timestamp() - greatest(
               max(coalesce(s.released_at, b.in_progress_at)),
               (select max(w.seen_at) from workers w where w.kind = 'gpu' and w.model = s.model)))::float8 as seconds
    from (select distinct batch from slices where state = 'waiting' and model is null) gathering
    join batches b on b.id = gathering.batch join slices s on s.batch = b.id
    join ensembles e on e.id = s.ensemble
    where s.fold is not null and s.state in ('queued', 'ready') and not s.held and {_REPLACEABLE}
      and b.state = 'in_progress' and b.finish_as is null
      and not exists (
          select from workers w where w.kind = 'gpu' and w.model = s.model and w.state = 'ready'
            and w.seen_at > clock_timestamp() - :gone)
      and not exists (
          select from pool_versions v join workers h on h.kind = 'pool' and h.pool = v.pool
          where v.queue = s.model and v.unfit_reason is null and h.state = 'ready'
            and h.seen_at > clock_timestamp() - :gone)
    group by s.batch, s.model, e.id, e.definition
    order by s.batch, s.model limit :limit""")
_PASS_OVER = text(f"""
    update slices s set state = 'dropped' from ensembles e
    where s.batch = :batch and s.model = :model and s.fold is not null and s.state in ('queued', 'ready') and not s.held
      and e.id = s.ensemble and {_REPLACEABLE}""")


MemberSegment: TypeAlias = tuple[int, Segment]
"""A member's place, and what it recorded."""


@dataclass(frozen=True)
class MemberSlice:
    """A member's part in a fold."""

    place: int
    model: str
    waits: bool
    """It was not asked."""
    picked: frozenset[int] | None
    """The lines that it was asked; None: all."""
    closing: bool
    """Its batch is, so nobody is asked any more."""


@dataclass(frozen=True)
class OwnPlan:
    """A blob that holds a slice's lines alone."""

    key: str
    bytes: int


@dataclass(frozen=True)
class Voted:
    """Lines that a vote decided, and the sum of their agreements."""

    lines: int = 0
    agreement: float = 0.0

    def __add__(self, other: Voted) -> Voted:
        return Voted(self.lines + other.lines, self.agreement + other.agreement)


@dataclass(frozen=True)
class Absence:
    """Members' slices of a batch that nobody serves."""

    batch: str
    model: str
    definition: EnsembleDefinition
    seconds: float


def ended(conn: Connection, slices: Sequence[int]) -> list[str]:
    """Mark the folds that are due since these slices of members are settled; their batches, which are locked."""
    return sorted(set(conn.execute(_END_OF, {"slices": list(slices)}).scalars()))


def ended_in(conn: Connection, batch: str) -> int:
    """Mark the folds of a locked batch that are due, whatever ended their members; how many there are new."""
    return conn.execute(_END_IN, {"batch": batch}).rowcount


def due_in(conn: Connection, batches: Sequence[str]) -> list[str]:
    """Those of the batches that have a due fold."""
    return list(conn.execute(_DUE_IN, {"batches": list(batches)}).scalars()) if batches else []


def some_due(conn: Connection, *, limit: int) -> list[str]:
    """Batches that have a due fold, those nearest their deadlines."""
    return list(conn.execute(_SOME_DUE, {"limit": limit}).scalars())


def unhinted(conn: Connection, *, again: timedelta, limit: int) -> list[str]:
    """Batches that have a due fold and were not hinted lately; they count as hinted from now on."""
    return list(conn.execute(_UNHINTED, {"again": again, "limit": limit}).scalars())


def drop(conn: Connection, batch: str, *, failed: bool) -> int:
    """Drop folds of a locked, closing batch that would answer nothing; all that wait, if it has `failed`."""
    return conn.execute(_DROP, {"batch": batch, "failed": failed}).rowcount


def members(conn: Connection, fold: int) -> list[MemberSlice]:
    """The members' slices of a fold, by place."""
    rows = conn.execute(_MEMBERS, {"fold": fold})
    return [
        MemberSlice(row.place, row.model, row.waits, None if row.picked is None else frozenset(row.picked), row.closing)
        for row in rows
    ]


def of_batch(conn: Connection, batch: str, *, after: int, limit: int) -> list[FoldRead]:
    """A batch's folds behind this one, by id."""
    rows = conn.execute(_OF_BATCH, {"batch": batch, "after": after, "limit": limit})
    return [FoldRead(row.id, ensembles.definition(row.definition)) for row in rows]


def segments(conn: Connection, fold: int) -> list[MemberSegment]:
    """What the members of a fold have recorded: each segment with its member's place, in the order of acceptance."""
    return [(row.place, _segment(row)) for row in conn.execute(_SEGMENTS, {"fold": fold})]


def _segment(row: Row[Any]) -> Segment:
    data = None if row.data is None else bytes(row.data)
    return Segment(row.id, row.slice, row.blob_key, data, row.bytes, row.lines, frozenset(row.failed_lines))


def ask(
    conn: Connection, slice: int, lease: int, picked: Mapping[int, Sequence[int]], plans: Mapping[int, OwnPlan]
) -> bool:
    """Let later members (by place) be asked for these lines, and the fold wait for them; False if its lease is lost.

    `plans`: where questions are that are not the lines themselves. May be repeated.
    """
    places = sorted(picked)
    values = {
        "slice": slice,
        "lease": lease,
        "places": places,
        "picked": ["{" + ",".join(map(str, sorted(picked[place]))) + "}" for place in places],
        "keys": [plans[place].key if place in plans else None for place in places],
        "bytes": [plans[place].bytes if place in plans else None for place in places],
    }
    if conn.execute(_ASK, values).first() is not None:
        return True
    return conn.execute(_ASKED_BEFORE, {"lease": lease}).first() is not None


def voted(conn: Connection, slice: int) -> Voted:
    """How a fold's lines were voted so far."""
    row = conn.execute(_VOTED, {"slice": slice}).one()
    return Voted(row.agreed, row.agreement)


def agree(conn: Connection, slice: int, voted: Voted) -> None:
    """Note how a fold's lines were voted until now; may be repeated."""
    conn.execute(_AGREE, {"slice": slice, "agreement": voted.agreement, "agreed": voted.lines})


def named(conn: Connection, fold: int, keys: Sequence[str]) -> list[str]:
    """Those of the blobs that a member of this fold is asked from."""
    return list(conn.execute(_WITH_KEYS, {"fold": fold, "keys": list(keys)}).scalars())


def unasked(conn: Connection, slices: Sequence[int]) -> None:
    """Let members that wait for these folds be dropped: the folds are settled."""
    conn.execute(_UNASKED, {"slices": list(slices)})


def absences(conn: Connection, *, gone: timedelta, limit: int) -> list[Absence]:
    """Work of members that waits while no worker and no pool is there for it."""
    rows = conn.execute(_WAITS, {"gone": gone, "limit": limit})
    return [Absence(row.batch, row.model, ensembles.definition(row.definition), row.seconds) for row in rows]


def pass_over(conn: Connection, batch: str, model: str) -> int:
    """Ask this model no more in a locked batch, as a member; how many slices that were."""
    return conn.execute(_PASS_OVER, {"batch": batch, "model": model}).rowcount
