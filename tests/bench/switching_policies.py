"""The policies that `make bench-switching` compares: first come, least recently used, exhaustive, and ours."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping
from typing import Final

from bench.switching_pool import Policy, Pool, Switch
from bench.switching_scenario import BOUNDS, CALL_BOUND, SHARE_LOST

from penstock.domain.pools import policy
from penstock.domain.pools.decision import Why
from penstock.domain.pools.situation import Deadline, PoolSituation, PoolTerms, Resident, Waiting
from penstock.domain.work.lane import Lane

_HOUR: Final = 3_600.0
_DEADLINES: Final = 8
"""So many of a version's are told."""


def first_come(pool: Pool) -> Switch | None:
    """The version of the oldest request is next, whatever the others have: as llama-swap and llmux do."""
    oldest = min((items[0] for items in pool.open.values() if items), key=lambda item: item.at, default=None)
    if oldest is None or oldest.version in pool.awake:
        return None
    if len(pool.awake) < pool.places:
        return Switch(oldest.version)
    return Switch(oldest.version, min(pool.awake, key=lambda version: pool.awake[version].ready))


def least_recently_used(pool: Pool) -> Switch | None:
    """Each is served until it is empty; then whoever was awake longest ago, of those who have work."""
    return _when_empty(pool, lambda version: -pool.last_awake.get(version, -1.0))


def exhaustive(pool: Pool) -> Switch | None:
    """Each is served until it is empty; then whoever has most work."""
    return _when_empty(pool, pool.work_seconds)


def _when_empty(pool: Pool, worth: Callable[[str], float]) -> Switch | None:
    others = [version for version, items in pool.open.items() if items and version not in pool.awake]
    if not others:
        return None
    comes = max(others, key=worth)
    if len(pool.awake) < pool.places:
        return Switch(comes)
    empty = [version for version in pool.awake if not pool.open[version]]
    return Switch(comes, min(empty, key=lambda version: pool.awake[version].idle_since)) if empty else None


class Ours:
    """`domain/pools/policy`, which sees what a pool host would read from Postgres."""

    def __init__(self) -> None:
        self.decisions = 0

    def __call__(self, pool: Pool) -> Switch | None:
        """Who comes now, as the policy says; what it says of bounds is noted with whom it is said of."""
        decision = policy.decide(situation(pool))
        self.decisions += 1
        pool.say(decision.unkept)
        if decision.comes is None:
            return None
        reasons = pool.outcome.reasons
        reasons[decision.why] = reasons.get(decision.why, 0) + 1
        return Switch(decision.comes, decision.leaves, decision.why is Why.CALL)


POLICIES: Final[Mapping[str, Callable[[], Policy]]] = {
    "FIFO": lambda: first_come,
    "LRU": lambda: least_recently_used,
    "exhaustive": lambda: exhaustive,
    "ours": Ours,
}


def situation(pool: Pool) -> PoolSituation:
    """What the policy may know."""
    lost = len(pool.switched) - bisect.bisect_left(pool.switched, pool.now - _HOUR)
    for_calls = len(pool.switched_for_calls) - bisect.bisect_left(pool.switched_for_calls, pool.now - _HOUR)
    seconds = pool.cell.engine.switch_seconds
    terms = PoolTerms(awake=pool.places, share_lost=SHARE_LOST, bounds=BOUNDS, call_bound_seconds=CALL_BOUND)
    return PoolSituation(
        terms,
        tuple(
            Resident(version, pool.now - one.ready, 0.0 if pool.open[version] else pool.now - one.idle_since)
            for version, one in pool.awake.items()
        ),
        {version: _waiting(pool, version) for version, items in pool.open.items() if items},
        pool.rates,
        dict.fromkeys(pool.rates, seconds),
        switches_for_calls=for_calls,
        lost_seconds=lost * seconds,
    )


def _waiting(pool: Pool, version: str) -> Waiting:
    tokens = 0.0
    oldest: dict[Lane, float] = {}
    call: float | None = None
    due: list[tuple[float, float]] = []
    for item in pool.open[version]:
        tokens += item.left
        waited = 0.0 if item.since is None else pool.now - item.since
        if item.lane is None:
            call = waited if call is None else max(call, waited)
        else:
            oldest[item.lane] = max(oldest.get(item.lane, 0.0), waited)
            due.append((item.due, item.left))
    due.sort()
    told, sum_ = [], 0.0
    for at, left in due[:_DEADLINES]:
        sum_ += left
        told.append(Deadline(at - pool.now, round(sum_)))
    return Waiting(max(1, round(tokens)), oldest, tuple(told), call)
