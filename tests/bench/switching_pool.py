"""A simulated pool: an event-driven clock, versions that serve at a fixed speed while awake, switches that cost time.

What is real: the policy, if it is ours, and the rule by which batches rise near their deadlines (`domain/work/slack`).
Within a version every policy's pool works in the platform's order: calls, then lane by lane, soonest deadline first.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from bench.switching_scenario import BOUNDS, CALL_BOUND, Arrivals, Cell

from penstock.domain.pools.decision import Unkept
from penstock.domain.work import slack
from penstock.domain.work.lane import Lane
from penstock.domain.work.slack import Outlook

CALL: Final = "call"
DEADLINE: Final = "deadline"
CALLER_PATIENCE: Final = 300.0
"""Seconds after which a caller gives up."""
_RISE_MARGIN: Final = 60.0
_RISE_SHARE: Final = 0.2
_DONE: Final = 1e-6


@dataclass
class Item:
    """A batch, or a waiting call (its lane is None), while it is open."""

    number: int
    version: str
    lane: Lane | None
    at: float
    due: float
    left: float
    window: float
    since: float | None
    """Without an engine since then; None while it has one, or only waits for others of its version."""
    begun: bool = False
    longest: float = 0.0
    said: bool = False
    """A decision said, before it was so, that this stretch would break its bound."""
    said_late: bool = False
    unsaid: bool = False
    """A bound was broken, and no decision had said so before."""
    vain: bool = False
    """A decision said so, and the bound was kept."""

    @property
    def kind(self) -> str:
        """Its lane, or `call`."""
        return CALL if self.lane is None else str(self.lane)


@dataclass
class Awake:
    """A version that is awake."""

    ready: float
    idle_since: float
    order: list[Item] = field(default_factory=list)
    """Its open items, the next one first."""


@dataclass(frozen=True)
class Switch:
    """What a policy wants."""

    comes: str
    leaves: str | None = None
    for_call: bool = False


@dataclass(frozen=True)
class Waited:
    """How long an item was without an engine at most, and what was said of it."""

    version: str
    kind: str
    seconds: float
    bound: float | None
    unsaid: bool
    vain: bool


@dataclass
class Outcome:
    """What came of one run."""

    seconds: float = 0.0
    tokens: float = 0.0
    switches: int = 0
    lost_seconds: float = 0.0
    """Of switching."""
    away_seconds: float = 0.0
    """Of that, from a version that still had work."""
    late: int = 0
    late_unsaid: int = 0
    gave_up: int = 0
    waits: list[Waited] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)


class Policy(Protocol):
    """Decides at each event and look; it may keep what it needs between them."""

    def __call__(self, pool: Pool) -> Switch | None:
        """Who comes now, in whose place; None: nobody."""


class Pool:
    """One run: `Pool(cell, arrivals).run(policy)`."""

    def __init__(self, cell: Cell, arrivals: Arrivals, places: int = 1) -> None:
        self.cell, self.places, self.now = cell, places, 0.0
        self.rates = arrivals.tokens_per_second
        self.open: dict[str, list[Item]] = {version: [] for version in self.rates}
        self.awake: dict[str, Awake] = {}
        self.last_awake: dict[str, float] = {}
        self.switched: list[float] = []
        """When each switch began."""
        self.switched_for_calls: list[float] = []
        self.outcome = Outcome()
        self._coming: tuple[float, str] | None = None
        self._expiries: list[tuple[float, int, Item]] = []
        items = [
            Item(one.number, one.version, one.lane, one.at, one.due, one.tokens, one.window, one.at)
            for one in arrivals.batches
        ]
        items += [
            Item(-1 - n, one.version, None, one.at, one.at + CALLER_PATIENCE, one.tokens, CALLER_PATIENCE, one.at)
            for n, one in enumerate(arrivals.calls)
        ]
        self._arrivals = sorted(items, key=lambda item: item.at, reverse=True)
        self._look = 0.0

    def run(self, policy: Policy) -> Outcome:
        """Until all that came is done or expired."""
        while self._arrivals or any(self.open.values()):
            until = self._next_event()
            self._serve(until - self.now)
            self.now = until
            self._land()
            self._arrive()
            self._end()
            if self._coming is None and (switch := policy(self)) is not None:
                self._begin(switch)
            self._look = self.now + self.cell.engine.look_seconds
            self._sort()
        self.outcome.seconds = self.now
        return self.outcome

    def work_seconds(self, version: str) -> float:
        """What is open for it, at its speed."""
        return sum(item.left for item in self.open[version]) / self.rates[version]

    def say(self, unkept: Sequence[Unkept]) -> None:
        """A decision says what it can't keep: noted with whom it is said of, while their bounds still hold."""
        for one in unkept:
            for item in self.open[one.queue]:
                if one.lane == DEADLINE:
                    item.said_late = True
                elif item.kind == one.lane and item.since is not None and self.now - item.since <= self._bound(item):
                    item.said = True

    def _bound(self, item: Item) -> float:
        if item.lane is None:
            return CALL_BOUND + self.cell.engine.switch_seconds
        return BOUNDS.get(item.lane, float("inf"))

    def _next_event(self) -> float:
        events = [self._arrivals[-1].at] if self._arrivals else []
        if self._expiries:
            events.append(self._expiries[0][0])
        if self._coming:
            events.append(self._coming[0])
        elif len(self.awake) < self.places or any(
            items for version, items in self.open.items() if version not in self.awake
        ):
            events.append(self._look)
        busy = [one for one in self.awake.values() if one.order]
        for one in busy:
            item = one.order[0]
            events.append(self.now + item.left * len(busy) / self.rates[item.version])
        return max(self.now, min(events))

    def _serve(self, seconds: float) -> None:
        """Whoever is awake and has work shares the device."""
        busy = [one for one in self.awake.values() if one.order]
        for one in busy:
            item = one.order[0]
            tokens = min(item.left, seconds * self.rates[item.version] / len(busy))
            item.left -= tokens
            self.outcome.tokens += tokens

    def _land(self) -> None:
        if self._coming and self._coming[0] <= self.now:
            version = self._coming[1]
            self.awake[version] = Awake(self.now, self.now)
            self._coming = None
            for item in self.open[version]:
                if item.begun:
                    self._has_engine(item)

    def _arrive(self) -> None:
        while self._arrivals and self._arrivals[-1].at <= self.now:
            item = self._arrivals.pop()
            self.open[item.version].append(item)
            heapq.heappush(self._expiries, (item.due, item.number, item))

    def _end(self) -> None:
        """What is done leaves, and so does what is past its deadline."""
        for one in self.awake.values():
            if one.order and one.order[0].left <= _DONE * self.rates[one.order[0].version]:
                self._close(one.order.pop(0), late=False)
        while self._expiries and (self._expiries[0][0] <= self.now or self._expiries[0][2].left < 0):
            item = heapq.heappop(self._expiries)[2]
            if item.left >= 0:
                self._close(item, late=True)

    def _close(self, item: Item, late: bool) -> None:
        item.left = -1.0  # its expiry finds it gone
        self.open[item.version].remove(item)
        if late and item.lane is None:
            self.outcome.gave_up += 1
        elif late:
            self.outcome.late += 1
            self.outcome.late_unsaid += not item.said_late
        self._has_engine(item)
        bound = self._bound(item)
        self.outcome.waits.append(
            Waited(
                item.version,
                item.kind,
                item.longest,
                None if bound == float("inf") else bound,
                item.unsaid,
                item.vain and item.longest <= bound,
            )
        )

    def _has_engine(self, item: Item) -> None:
        """Its wait is over."""
        if item.since is None:
            return
        waited = self.now - item.since
        item.longest = max(item.longest, waited)
        broken = waited > self._bound(item) + _DONE
        item.unsaid |= broken and not item.said
        item.vain |= item.said and not broken
        item.since, item.said = None, False

    def _begin(self, switch: Switch) -> None:
        seconds = self.cell.engine.switch_seconds
        assert switch.comes not in self.awake
        if switch.leaves is not None:
            del self.awake[switch.leaves]
            self.last_awake[switch.leaves] = self.now
            if self.open[switch.leaves]:
                self.outcome.away_seconds += seconds
            for item in self.open[switch.leaves]:
                if item.begun:
                    item.since = self.now
        assert len(self.awake) < self.places
        self._coming = (self.now + seconds, switch.comes)
        self.switched.append(self.now)
        if switch.for_call:
            self.switched_for_calls.append(self.now)
        self.outcome.switches += 1
        self.outcome.lost_seconds += seconds

    def _sort(self) -> None:
        """The order in which each that is awake goes on; what is first has its engine now."""
        for version, one in self.awake.items():
            had = bool(one.order)
            one.order = sorted(self.open[version], key=self._rank)
            if one.order:
                for item in [one.order[0], *(item for item in one.order[1:] if item.lane is None)]:
                    item.begun = True  # calls are few: the engine has them all at once
                    self._has_engine(item)
            elif had:
                one.idle_since = self.now

    def _rank(self, item: Item) -> tuple[int, float, int]:
        if item.lane is None:
            return (-1, item.at, item.number)
        needed = item.left / self.rates[item.version]
        outlook = Outlook("", "", False, True, item.due - self.now, item.window, needed)
        return (item.lane.rank - slack.rises(outlook, _RISE_MARGIN, _RISE_SHARE), item.due, item.number)
