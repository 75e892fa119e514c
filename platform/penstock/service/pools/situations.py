"""Situations: what waits for each version of a pool, what is awake on a host, how fast all are, what a switch costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from penstock.domain.pools.pool import ResidentState
from penstock.domain.pools.situation import (
    UNKNOWN_TOKENS_PER_SECOND,
    Deadline,
    PoolSituation,
    PoolTerms,
    Resident,
    Waiting,
)
from penstock.domain.pools.switch import switch_seconds
from penstock.domain.work.lane import Lane
from penstock.service.core.transaction import Transaction
from penstock.service.pools import pools
from penstock.settings.dispatch import DispatchSettings
from penstock.store.pools import residents, situations
from penstock.store.pools.situations import OpenTokens, VersionFacts

LEFT_ALONE: Final = timedelta(minutes=5)
"""A version whose switch an operator cancelled is not switched to for so long, unless it is woken."""


def read(tx: Transaction, pool: str, host: UUID, settings: DispatchSettings) -> PoolSituation:
    """What a host of a pool decides by. Nobody else decides for the pool until the transaction's end.

    Versions that are awake or coming on another live host of the pool are not in its `waiting`, nor those that workers
    elsewhere serve in time, nor those whose switch an operator just cancelled. A version that an operator wants woken
    is as one that is pinned, until it is awake. Raises NotFound.
    """
    pools.lock(tx, pool)
    residents.woken(tx.conn, pool, host)
    return look(tx, pool, host, settings)


def look(tx: Transaction, pool: str, host: UUID, settings: DispatchSettings) -> PoolSituation:
    """The same for those who only look. Raises NotFound."""
    terms = pools.get(tx, pool).terms
    gone = timedelta(seconds=settings.worker_gone_seconds)
    found = situations.versions(tx.conn, pool, host, gone=gone, cancelled=LEFT_ALONE)
    work: dict[str, list[OpenTokens]] = {one.queue: [] for one in found}
    for open in situations.work(tx.conn, list(work)):
        work[open.queue].append(open)
    for_calls, lost_seconds = situations.last_hour(tx.conn, pool)
    waiting = {one.queue: _waiting(one, work[one.queue]) for one in found}
    return PoolSituation(
        terms=terms,
        residents=tuple(_resident(one) for one in found if one.state == ResidentState.AWAKE),
        waiting={one.queue: waiting[one.queue] for one in found if _may_come(one, waiting[one.queue], terms)},
        tokens_per_second={one.queue: one.tokens_per_second or UNKNOWN_TOKENS_PER_SECOND for one in found},
        switch_seconds={one.queue: switch_seconds(one.engine, one.switch_seconds) for one in found},
        pinned=frozenset(one.queue for one in found if (one.pinned or one.wake) and not one.taken),
        unfit=frozenset(one.queue for one in found if one.unfit),
        switches_for_calls=for_calls,
        lost_seconds=lost_seconds,
    )


def _resident(one: VersionFacts) -> Resident:
    return Resident(one.queue, max(0.0, one.awake_seconds or 0.0), one.idle_seconds)


def _may_come(one: VersionFacts, waiting: Waiting, terms: PoolTerms) -> bool:
    """Whether this host should look at a version's work."""
    if one.state == ResidentState.AWAKE:
        return True
    if one.taken or (one.cancelled and not one.wake):
        return False
    return not (one.others and _kept(waiting, one.others_tokens_per_second, terms))


def _kept(waiting: Waiting, tokens_per_second: float, terms: PoolTerms) -> bool:
    """Whether workers that are no members of the host keep every deadline and bound; one that has not measured itself
    yet has only begun."""
    if not tokens_per_second:
        return True
    seconds = waiting.tokens / tokens_per_second
    late = any(one.tokens / tokens_per_second > one.seconds for one in waiting.deadlines)
    over = any(lane in waiting.oldest and seconds > bound for lane, bound in terms.bounds.items())
    return not late and not over


def _waiting(one: VersionFacts, work: Sequence[OpenTokens]) -> Waiting:
    oldest: dict[Lane, float] = {}
    for open in work:
        lane = Lane(open.lane)
        oldest[lane] = 0.0 if one.state == ResidentState.AWAKE else max(oldest.get(lane, 0.0), open.waited)
    tokens = sum(open.tokens for open in work) * one.tokens_scale
    call = one.oldest_call if one.on_demand else None
    return Waiting(round(tokens), oldest, tuple(_deadlines(work, one.tokens_scale)), call)


def _deadlines(work: Iterable[OpenTokens], scale: float) -> Iterator[Deadline]:
    """Cumulative, soonest first."""
    due = 0.0
    for open in work:
        due += open.tokens * scale
        yield Deadline(open.seconds, round(due))
