"""When a version's turn is likely to come: an estimate for people and for what is expected of batches.

The policy decides each second anew, by more than this knows. What is taken here: whoever is awake has the rest of its
quantum if it has work for it, but no longer than the bound of who waits; who has waited longer goes before.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from penstock.domain.accounts.access import allows
from penstock.domain.pools.situation import PoolSituation, Resident, Waiting
from penstock.domain.work.batch_words import many, roughly

_NOTHING = Waiting()


@dataclass(frozen=True)
class ExpectedWake:
    """When a version will be awake, and what goes before it."""

    seconds: float
    """From now until it is ready, its own switch included."""
    behind: tuple[tuple[str, int], ...]
    """Tokens that are left of those who are awake or go before it, by queue, the most first."""


def expected_wake(now: PoolSituation, queue: str) -> ExpectedWake | None:
    """When this version, which is not awake, will be; None if nobody can say: it is unfit, or no place is ever free."""
    if queue in now.unfit:
        return None
    wanted = now.waiting.get(queue, _NOTHING)
    movable = [one for one in now.residents if one.queue not in now.pinned]
    places = [0.0] * max(0, now.terms.awake - len(now.residents)) + [_rest(now, one, wanted) for one in movable]
    if not places:
        return None
    heapq.heapify(places)
    ahead = [] if queue in now.pinned else _ahead(now, queue, _longest(wanted))
    for other in ahead:
        began = heapq.heappop(places)
        stay = min(now.work_seconds(other), now.terms.quantum_seconds(now.cost(other)))
        heapq.heappush(places, began + now.cost(other) + stay)
    names = [one.queue for one in now.residents] + ahead
    behind = [(name, now.waiting.get(name, _NOTHING).tokens) for name in names]
    told = sorted((one for one in behind if one[1] > 0), key=lambda one: -one[1])
    return ExpectedWake(heapq.heappop(places) + now.cost(queue), tuple(told))


@dataclass(frozen=True)
class Asleep:
    """A version of a live pool that is not awake on any host of it."""

    queue: str
    pool: str
    on_demand: bool
    waking: bool = False
    """It is on its way."""
    expected: ExpectedWake | None = None
    """None: nobody can say."""
    tokens_per_second: float = 0.0
    """Once it is awake."""
    switch_seconds: float = 0.0

    def sentence(self, models: frozenset[str] | None = None) -> str:
        """For people: `qwen is asleep: behind 2.1 M tokens of llama on pool a, about 6 min`.

        With the models that whoever reads it may ask (None: all); others are not named.
        """
        if self.expected is None:
            return f"{self.queue} is asleep on pool {self.pool}, and nobody can say when it wakes"
        about = f"about {roughly(self.expected.seconds)}"
        if self.waking:
            return f"{self.queue} is waking on pool {self.pool}, {about}"
        if not self.expected.behind:
            return f"{self.queue} is asleep: next on pool {self.pool}, {about}"
        name, tokens = self.expected.behind[0]
        name = name if allows(models, name) else "another model"
        others = " and others" if len(self.expected.behind) > 1 else ""
        return f"{self.queue} is asleep: behind {many(tokens)} tokens of {name}{others} on pool {self.pool}, {about}"


def _ahead(now: PoolSituation, queue: str, waited: float) -> list[str]:
    awake = {one.queue for one in now.residents}
    others = {
        name: _longest(one)
        for name, one in now.waiting.items()
        if name not in awake and name != queue and name not in now.unfit and _has_work(one)
    }
    return sorted((name for name in others if others[name] > waited), key=lambda name: -others[name])


def _rest(now: PoolSituation, one: Resident, wanted: Waiting) -> float:
    work = now.work_seconds(one.queue)
    if work <= 0:
        return max(0.0, now.terms.linger_seconds - one.idle_seconds)
    left = [now.terms.quantum_seconds(now.cost(one.queue)) - one.awake_seconds]
    left += [bound - wanted.oldest[lane] for lane, bound in now.terms.bounds.items() if lane in wanted.oldest]
    if wanted.oldest_call is not None:
        left.append(now.terms.call_bound_seconds - wanted.oldest_call)
    return max(0.0, min(work, *left))


def _has_work(one: Waiting) -> bool:
    return one.tokens > 0 or one.oldest_call is not None


def _longest(one: Waiting) -> float:
    return max([*one.oldest.values(), one.oldest_call or 0.0], default=0.0)
