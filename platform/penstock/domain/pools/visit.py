"""A visit: what a version that is not awake would do with a place, and until when the switch to it has to begin.

Pools are polling systems (Takagi, "Queuing analysis of polling models", ACM Computing Surveys 1988): one server goes
from queue to queue, and each way costs time. A visit is its stay at one queue.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.domain.pools.situation import PoolSituation
from penstock.domain.work.lane import LANES

CALL: Final = "call"
DEADLINE: Final = "deadline"

_CALL_RANK: Final = -1
"""A waiting call stands above all lanes."""
_NO_RANK: Final = len(LANES)
_NOISE: Final = 0.1
"""Rates and costs are estimates: a switch begins by this part of what it is for, and of its own time, earlier."""
_LEAST_MARGIN_SECONDS: Final = 2.0
"""A pool decides once a second."""
UNKNOWN_SWITCH_SECONDS: Final = 60.0
"""Until a switch to a version was measured; a slow start, so that it is not thought to be free."""
UNKNOWN_TOKENS_PER_SECOND: Final = 1_000.0


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
    """Soonest first: bounds, broken ones too, and deadlines that can be met."""
    missed: tuple[LatestStart, ...]
    """Deadlines that can't be met any more, and bounds that are not kept: calls beyond the most."""

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
    switch = situation.switch_seconds.get(queue, UNKNOWN_SWITCH_SECONDS)
    rate = situation.tokens_per_second.get(queue) or UNKNOWN_TOKENS_PER_SECOND
    starts: list[LatestStart] = []
    missed: list[LatestStart] = []
    for lane, waited in waiting.oldest.items():
        if (bound := terms.bounds.get(lane)) is not None:
            starts.append(LatestStart(str(lane), bound, waited, bound - waited - switch))
    if waiting.oldest_call is not None:
        bound = terms.call_bound_seconds + switch
        start = LatestStart(CALL, bound, waiting.oldest_call, bound - waiting.oldest_call - switch)
        (starts if calls else missed).append(start)
    for deadline in waiting.deadlines:
        needs = deadline.tokens / rate
        slack = deadline.seconds - needs - switch
        # Feasible is what the bare work says; the switch begins earlier, since rates are not exact.
        early = slack - _NOISE * needs
        start = LatestStart(DEADLINE, deadline.seconds, 0.0, max(0.0, early) if slack >= 0 else slack, needs)
        (starts if slack >= 0 else missed).append(start)
    starts.sort(key=lambda start: start.seconds)
    rank = _CALL_RANK if calls else min((lane.rank for lane in waiting.oldest), default=_NO_RANK)
    return Visit(queue, switch, waiting.tokens / rate, rank, tuple(starts), tuple(missed))


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
                margin = max(_LEAST_MARGIN_SECONDS, _NOISE * one.switch_seconds)
                least = min(least, start.seconds - begins - margin)
                break  # the soonest of them
    return least


def longest_quantum(visits: Sequence[Visit], least_seconds: float, most_seconds: float, places: int) -> float:
    """The longest quantum with which all bounds are kept if the first begins now; the least if there is none."""
    if spare(visits, most_seconds, places) >= 0:
        return most_seconds
    low, high = least_seconds, most_seconds
    if spare(visits, low, places) < 0:
        return least_seconds
    while high - low > 1.0:
        middle = (low + high) / 2
        low, high = (middle, high) if spare(visits, middle, places) >= 0 else (low, middle)
    return low


def most_urgent_first(visits: Iterable[Visit]) -> list[Visit]:
    """Those that have a bound or a deadline to keep, in the order of their turns."""
    return sorted((one for one in visits if one.starts), key=lambda one: one.urgency)
