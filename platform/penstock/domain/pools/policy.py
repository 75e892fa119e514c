"""The policy of a pool: who leaves and who comes, from the pool's situation alone.

A version that has work stays, until another one's bound or deadline asks for the place (the last moment at which all
bounds are still kept), or until it has had its quantum and another is worth more. No clock, no chance, no memory: the
same situation gives the same decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.domain.pools.decision import PoolDecision, Unkept, Why
from penstock.domain.pools.situation import PoolSituation, Resident
from penstock.domain.pools.visit import (
    CALL,
    CALL_RANK,
    DEADLINE,
    NO_RANK,
    Visit,
    in_turn,
    longest_quantum,
    most_urgent_first,
    spare,
    visit,
)

_HOUR: float = 3_600.0


def decide(situation: PoolSituation) -> PoolDecision:
    """What is to be done now: who leaves, who comes, why; and which bounds can't be kept, whatever is decided.

    Pinned versions come first and never leave; unfit ones never come; a version without work never comes unless it is
    pinned. Raises nothing: what was not measured yet is taken as slow.
    """
    pool = _Pool.of(situation)
    if (wanted := _wanted(pool)) is not None:
        return wanted
    if not pool.visits:
        return _stays(pool, Why.NO_WORK)
    if pool.free > 0:
        return _goes(pool, Why.FREE_PLACE, None, _next(pool, pool.visits))
    for rule in (_idle, _pressed, _quantum):
        if (decision := rule(pool)) is not None:
            return decision
    return _stays(pool, Why.STAYS)


@dataclass(frozen=True)
class _Pool:
    """A situation, worked out once."""

    situation: PoolSituation
    visits: tuple[Visit, ...]
    """Of versions that are not awake and have work, whoever is worth most first."""
    chain: tuple[Visit, ...]
    """Of these, who has a bound or a deadline to keep, in the order of their turns."""
    movable: tuple[Resident, ...]
    """Residents that may leave."""
    free: int
    least_seconds: float
    """A resident with work stays so long, whatever presses."""
    quantum_seconds: float
    """Of those who come: the plan's, or as short as the bounds make it."""
    spare_seconds: float
    """So much later the chain may begin, and all bounds in it are kept that still can be."""

    @classmethod
    def of(cls, situation: PoolSituation) -> _Pool:
        terms = situation.terms
        awake = {one.queue for one in situation.residents}
        visits = sorted(
            (
                found
                for queue in situation.waiting
                if queue not in awake and queue not in situation.unfit and (found := visit(situation, queue))
            ),
            key=lambda one: one.order,
        )
        chain = most_urgent_first(visits)
        movable = tuple(one for one in situation.residents if one.queue not in situation.pinned)
        free = terms.awake - len(situation.residents)
        places = max(1, free + len(movable))
        cost = max((one.switch_seconds for one in visits), default=0.0)
        least = terms.least_quantum_seconds
        full = max(terms.quantum_seconds(cost), least)
        if any(one.starts[0].broken for one in chain):
            # What can't be kept any more is caught up with by working: at most half of the time is switching.
            full = least = max(least, cost)

        def rest(quantum: float) -> float:
            left = [min(quantum - one.awake_seconds, situation.work_seconds(one.queue)) for one in movable]
            return 0.0 if free > 0 else max(0.0, min(left, default=0.0))

        quantum = longest_quantum(chain, rest, least, full, places)
        return cls(situation, tuple(visits), tuple(chain), movable, free, least, quantum, spare(chain, quantum, places))

    @property
    def places(self) -> int:
        """That visits can have: without the pinned ones."""
        return max(1, self.free + len(self.movable))

    @property
    def resident_quantum(self) -> float:
        """So long whoever is awake may stay at most, if it has work: until the chain has to begin."""
        left = min((one.awake_seconds for one in self.movable), default=0.0) + max(0.0, self.spare_seconds)
        return max(self.least_seconds, min(self.quantum_seconds, left))

    def idle(self, one: Resident) -> bool:
        """True if a resident has nothing to do."""
        found = self.situation.waiting.get(one.queue)
        return found is None or not (found.tokens or found.oldest or found.oldest_call is not None)

    def lingered(self, one: Resident) -> bool:
        """True if it has nothing to do, and no calls either, for its linger."""
        return self.idle(one) and one.idle_seconds >= self.situation.terms.linger_seconds


def _wanted(pool: _Pool) -> PoolDecision | None:
    """A pinned version that is not awake comes at once, with or without work."""
    situation = pool.situation
    awake = {one.queue for one in situation.residents}
    missing = sorted(situation.pinned - awake - situation.unfit)
    if not missing or (pool.free <= 0 and not pool.movable):
        return None
    comes = min(missing, key=lambda queue: (queue not in situation.waiting, queue))
    leaves = None if pool.free > 0 else min(pool.movable, key=lambda one: _leaves_first(pool, one)).queue
    return PoolDecision(Why.PINNED, leaves, comes, _scores(pool), pool.resident_quantum, _unkept(pool, comes))


def _idle(pool: _Pool) -> PoolDecision | None:
    """A resident without work makes place after its linger.

    Where the last hour has lost its share to switching, it does so only for a waiting call, for a quantum of work, or
    after a quantum of its own.
    """
    terms, situation = pool.situation.terms, pool.situation
    lingered = [one for one in pool.movable if pool.lingered(one)]
    for leaves in sorted(lingered, key=lambda one: (-one.idle_seconds, one.queue)):
        worth = [
            one
            for one in pool.visits
            if situation.lost_seconds + one.switch_seconds <= terms.share_lost * _HOUR
            or max(leaves.awake_seconds, one.work_seconds) >= terms.quantum_seconds(one.switch_seconds)
        ]
        if worth:
            return _goes(pool, Why.IDLE, leaves, _next(pool, worth))
        if called := [one for one in pool.visits if one.rank == CALL_RANK]:
            return _goes(pool, Why.CALL, leaves, _next(pool, called))
    return None


def _pressed(pool: _Pool) -> PoolDecision | None:
    """Somebody leaves at the last moment at which all bounds that can be kept still are."""
    if not pool.chain:
        return None
    comes = pool.chain[0]
    if not comes.starts[0].broken and pool.spare_seconds > 0:
        return None
    may = [one for one in pool.movable if _may_be_pressed(pool, one, comes)]
    if not may:
        return None
    why = {CALL: Why.CALL, DEADLINE: Why.DEADLINE}.get(comes.starts[0].what, Why.BOUND)
    return _goes(pool, why, min(may, key=lambda one: _leaves_first(pool, one)), comes)


def _may_be_pressed(pool: _Pool, one: Resident, comes: Visit) -> bool:
    """True if it has nothing to do, or has had its quantum, and leaving does not make its own work late."""
    if pool.idle(one):
        return True
    if one.awake_seconds < pool.least_seconds:
        return False
    back = comes.switch_seconds + comes.stay(pool.quantum_seconds) + pool.situation.cost(one.queue)
    for deadline in pool.situation.waiting[one.queue].deadlines:
        needs = deadline.tokens / pool.situation.speed(one.queue)
        if needs <= deadline.seconds < back + needs:
            # Both can't be kept. The longer job is the one to be late: fewest jobs are (Moore 1968).
            first = comes.starts[0]
            return first.what == DEADLINE and first.needs_seconds < needs
    return True


def _quantum(pool: _Pool) -> PoolDecision | None:
    """After the plan's quantum the place is whoever's it is worth most to; calls alone are worth less than any work."""
    comes = _next(pool, pool.visits)
    full = pool.situation.terms.quantum_seconds(comes.switch_seconds)
    may = [
        one
        for one in pool.movable
        if one.awake_seconds >= full and comes.order[:2] < _resident_order(pool, one) and not pool.lingered(one)
        if _may_be_pressed(pool, one, comes)
    ]
    if not may:
        return None
    return _goes(pool, Why.QUANTUM, min(may, key=lambda one: _leaves_first(pool, one)), comes)


def _next(pool: _Pool, among: Sequence[Visit]) -> Visit:
    """Whoever is worth most, if everybody else is still in time after its visit; else whose turn is most urgent."""
    if not pool.chain or pool.chain[0].starts[0].broken:
        urgent = [one for one in pool.chain if one in among]
        return urgent[0] if urgent else among[0]
    for one in among:
        others = [other for other in pool.chain if other is not one]
        if spare([one, *others], pool.quantum_seconds, pool.places) >= 0:
            return one
    return next((one for one in pool.chain if one in among), among[0])


def _resident_order(pool: _Pool, one: Resident) -> tuple[int, float]:
    """As a visit's, so that both can be compared."""
    found = pool.situation.waiting.get(one.queue)
    ranks = [] if found is None else [lane.rank for lane in found.oldest]
    if found is not None and found.oldest_call is not None:
        ranks.append(CALL_RANK)
    worth = pool.situation.work_seconds(one.queue) / max(pool.situation.cost(one.queue), 0.1)
    return (min(ranks, default=NO_RANK), -worth)


def _leaves_first(pool: _Pool, one: Resident) -> tuple[bool, int, float, str]:
    """Sorts who leaves first: those without work, then whoever is worth least."""
    rank, less = _resident_order(pool, one)
    return (not pool.idle(one), -rank, -less, one.queue)


def _goes(pool: _Pool, why: Why, leaves: Resident | None, comes: Visit) -> PoolDecision:
    return PoolDecision(
        why,
        leaves.queue if leaves else None,
        comes.queue,
        _scores(pool),
        pool.resident_quantum,
        _unkept(pool, comes.queue),
    )


def _stays(pool: _Pool, why: Why) -> PoolDecision:
    return PoolDecision(why, None, None, _scores(pool), pool.resident_quantum, _unkept(pool, None))


def _scores(pool: _Pool) -> dict[str, float]:
    """Seconds of work for each second of switching."""
    return {one.queue: round(one.worth, 3) for one in pool.visits}


def _unkept(pool: _Pool, comes: str | None) -> tuple[Unkept, ...]:
    """What can't be kept: by when each turn is likely to come, in the order of the chain."""
    first = [one for one in pool.visits if one.queue == comes]
    turns = [*first, *(one for one in pool.chain if one.queue != comes)]
    turns += [one for one in pool.visits if one not in turns]
    wait = 0.0
    if comes is None and not any(pool.idle(one) for one in pool.movable):
        rests = [
            min(pool.least_seconds - one.awake_seconds, pool.situation.work_seconds(one.queue)) for one in pool.movable
        ]
        wait = max(0.0, min(rests, default=_HOUR))
    found: dict[tuple[str, str], Unkept] = {}
    for one, begins in zip(turns, in_turn(turns, pool.quantum_seconds, pool.places), strict=True):
        for start in (*one.missed, *one.starts):
            expected = start.waited_seconds + wait + begins + one.switch_seconds + start.needs_seconds
            if start.what == CALL and start in one.missed:
                expected = max(expected, start.bound_seconds)  # nobody switches for it
            elif expected <= start.bound_seconds:
                continue
            unkept = Unkept(one.queue, start.what, start.bound_seconds, round(expected, 1))
            found.setdefault((one.queue, start.what), unkept)
    for unkept in _unkept_awake(pool):
        found.setdefault((unkept.queue, unkept.lane), unkept)
    return tuple(found.values())


def _unkept_awake(pool: _Pool) -> list[Unkept]:
    """Of residents: what waits behind so much of its own version's work that it can't be in time."""
    terms, found = pool.situation.terms, []
    for one in pool.situation.residents:
        waiting = pool.situation.waiting.get(one.queue)
        if waiting is None:
            continue
        work = pool.situation.work_seconds(one.queue)
        for lane, waited in waiting.oldest.items():
            bound = terms.bounds.get(lane)
            if bound is not None and waited > bound / 2 and waited + work > bound:
                found.append(Unkept(one.queue, str(lane), bound, round(waited + work, 1)))
        for deadline in waiting.deadlines:
            needs = deadline.tokens / pool.situation.speed(one.queue)
            if needs > deadline.seconds > 0:
                found.append(Unkept(one.queue, DEADLINE, deadline.seconds, round(needs, 1)))
                break
    return found
