"""A visit: what a version that is not awake would do with a place, and until when the switch to it has to begin.

Pools are polling systems (Takagi, "Queuing analysis of polling models", ACM Computing Surveys 1988): one server goes
from queue to queue, and each way costs time. A visit is its stay at one queue.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.domain.pools.situation import PoolSituation
from penstock.domain.work.lane import LANES

CALL: Final = "call"
DEADLINE: Final = "deadline"

CALL_RANK: Final = -1
"""A waiting call stands above all lanes."""
NO_RANK: Final = len(LANES)
_NOISE: Final = 0.1
"""Rates and costs are estimates: a switch begins by this part of what it is for, and of its own time, earlier."""
_EARLY: Final = 0.05
"""And by this part of a bound: what comes meanwhile and is more urgent would break it otherwise."""
_LEAST_MARGIN_SECONDS: Final = 2.0
"""A pool decides once a second."""


@dataclass(frozen=True)
class LatestStart:
    """Until when a switch has to begin, and what for."""

    what: str
    """A lane, `call` or `deadline`."""
    bound_seconds: float
    """How long it may wait in all; of a deadline, how far off it is."""
    waited_seconds: float
    """Of a deadline 0."""
    seconds: float
    """From now; negative if it is too late."""
    needs_seconds: float = 0.0
    """The work that has to be done by then: of a deadline."""

    @property
    def broken(self) -> bool:
        """True if the bound can't be kept any more, even by a switch at once."""
        return self.seconds < 0

    @property
    def relative(self) -> float:
        """How much of its bound it has waited when it is awake at last: above 1 if it is broken."""
        return (self.bound_seconds - self.seconds) / self.bound_seconds if self.bound_seconds > 0 else 1.0


@dataclass(frozen=True)
class Visit:
    """One version's next visit."""

    queue: str
    switch_seconds: float
    work_seconds: float
    """All that waits for it, at its speed."""
    rank: int
    """Of its most urgent work: -1 for a waiting call, then the lanes'."""
    starts: tuple[LatestStart, ...]
    """Soonest first: bounds, broken ones too, and of the deadlines that can be met the most pressing."""
    missed: tuple[LatestStart, ...]
    """What can't be kept, or is not: the first deadline that can't be met any more, calls beyond the most."""

    @property
    def worth(self) -> float:
        """Seconds of work for each second of switching."""
        return self.work_seconds / max(self.switch_seconds, 0.1)

    @property
    def order(self) -> tuple[int, float, str]:
        """Sorts who is worth most first: by lane, then by worth."""
        return (self.rank, -self.worth, self.queue)

    @property
    def urgency(self) -> tuple[int, float, str]:
        """Sorts whose turn is most urgent first: broken bounds by their relative wait, then the latest starts."""
        first = self.starts[0]
        if first.broken:
            return (0, -max(start.relative for start in self.starts if start.broken), self.queue)
        return (1, first.seconds, self.queue)

    def stay(self, quantum_seconds: float) -> float:
        """How long it would be awake, with this quantum."""
        return min(self.work_seconds, quantum_seconds)


def visit(situation: PoolSituation, queue: str) -> Visit | None:
    """The next visit of a version; None if nothing waits for it that a pool would switch for."""
    waiting, terms = situation.waiting.get(queue), situation.terms
    if waiting is None:
        return None
    calls = waiting.oldest_call is not None and situation.switches_for_calls < terms.most_switches_for_calls
    if not calls and not waiting.tokens and not waiting.oldest:
        return None
    switch = situation.cost(queue)
    rate = situation.speed(queue)
    starts: list[LatestStart] = []
    missed: list[LatestStart] = []
    for lane, waited in waiting.oldest.items():
        if (bound := terms.bounds.get(lane)) is not None:
            starts.append(LatestStart(str(lane), bound, waited, bound - waited - switch))
    if waiting.oldest_call is not None:
        bound = terms.call_bound_seconds + switch
        start = LatestStart(CALL, bound, waiting.oldest_call, bound - waiting.oldest_call - switch)
        (starts if calls else missed).append(start)
    found = [_deadline(one.seconds, one.tokens / rate, switch) for one in waiting.deadlines]
    starts += sorted((one for one in found if not one.broken), key=lambda one: one.seconds)[:1]
    missed += [one for one in found if one.broken and one.bound_seconds > 0][:1]
    starts.sort(key=lambda start: start.seconds)
    rank = CALL_RANK if calls else min((lane.rank for lane in waiting.oldest), default=NO_RANK)
    return Visit(queue, switch, waiting.tokens / rate, rank, tuple(starts), tuple(missed))


def _deadline(seconds: float, needs: float, switch: float) -> LatestStart:
    """Feasible is what the bare work says; the switch begins earlier, since rates are not exact."""
    slack = seconds - needs - switch
    start = max(0.0, slack - _NOISE * needs) if slack >= 0 else slack
    return LatestStart(DEADLINE, seconds, 0.0, start, needs)


def in_turn(visits: Sequence[Visit], quantum_seconds: float, places: int) -> list[float]:
    """When the switch to each begins if they come in this order, each for at most a quantum, and the first now."""
    free = [0.0] * places
    begins = []
    for one in visits:
        at = heapq.heappop(free)
        begins.append(at)
        heapq.heappush(free, at + one.switch_seconds + one.stay(quantum_seconds))
    return begins


def spare(visits: Sequence[Visit], quantum_seconds: float, places: int) -> float:
    """How many seconds later they could begin and all bounds would be kept that are not broken; infinite without any.

    Negative if they would not be kept even now.
    """
    least = float("inf")
    for one, begins in zip(visits, in_turn(visits, quantum_seconds, places), strict=True):
        for start in one.starts:
            if not start.broken:
                early = 0.0 if start.what == DEADLINE else _EARLY * start.bound_seconds
                margin = max(_LEAST_MARGIN_SECONDS, _NOISE * one.switch_seconds, early)
                least = min(least, start.seconds - begins - margin)
                break  # the soonest of them
    return least


def longest_quantum(
    visits: Sequence[Visit],
    rest: Callable[[float], float],
    least_seconds: float,
    most_seconds: float,
    places: int,
) -> float:
    """The longest quantum with which all bounds are kept, for who is awake and for all who come; else the least.

    `rest` says how long whoever is awake goes on with such a quantum, until the first of the visits begins.
    """

    def kept(quantum: float) -> bool:
        return spare(visits, quantum, places) >= rest(quantum)

    if kept(most_seconds):
        return most_seconds
    if not kept(least_seconds):
        return least_seconds
    low, high = least_seconds, most_seconds
    while high - low > 1.0:
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) else (low, middle)
    return low


def most_urgent_first(visits: Iterable[Visit]) -> list[Visit]:
    """Those that have a bound or a deadline to keep, in the order of their turns."""
    return sorted((one for one in visits if one.starts), key=lambda one: one.urgency)
