"""The line budget: how many batch lines may be in the engine now, and why. Pure: it is told what was seen.

    all         all n: more lines still bring more tokens, and no promise to waiting calls is broken by them
    knee        fewer than n: more were tried, and brought no more tokens a second; see knee.py
    trying      a trial of the knee is under way
    no_calls    all n: nobody has called lately, and fewer lines would serve nobody; the next call brings back what was
                learned
    slo_ttft    what was learned: more lines broke the promise about the first token
    slo_itl     the same about the time between tokens
    probing     less than n, and nothing says that more would be too much: it rises as samples show that
    kv          what the engine's KV cache bears
    refused     what the engine takes, by what it refused; see aimd.py
    slow        the same by its latency, where it does not say how loaded it is

Slots for waiting calls are kept free by the gate whatever stands here: see gate.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from penstock.domain.calls.ingress import Slo
from penstock_worker.admission.backpressure import NO_PRESSURE, Pressure
from penstock_worker.budget.aimd import Aimd
from penstock_worker.budget.knee import Knee
from penstock_worker.budget.kv_guard import KvGuard
from penstock_worker.budget.slo_search import SloSearch

QUIET_SECONDS: Final = 30.0


class Reason(StrEnum):
    """Why the budget stands where it stands."""

    ALL = "all"
    KNEE = "knee"
    TRYING = "trying"
    NO_CALLS = "no_calls"
    SLO_TTFT = "slo_ttft"
    SLO_ITL = "slo_itl"
    PROBING = "probing"
    KV = "kv"
    REFUSED = "refused"
    SLOW = "slow"


@dataclass(frozen=True)
class EngineLoad:
    """What the engine's metrics say."""

    running: int
    waiting: int
    kv_usage: float
    """Part of the KV cache that is in use, 0 to 1."""
    preemptions: int
    """Requests that were thrown out of the cache, since the engine began."""
    tokens: int = 0
    """Prompt tokens and generated ones, since the engine began."""
    output_tokens: int = 0
    """Of these: those that it generated."""
    prefix_queries: int = 0
    """Prompt tokens that it looked up in its prefix cache."""
    prefix_hits: int = 0
    """Of these: those that were there."""


@dataclass(frozen=True)
class Observation:
    """What was seen since the last step, and what is in flight at its end."""

    at: float
    """Seconds of any clock."""
    lines: int
    calls: int
    """Waiting calls that came since the last step, or are in flight."""
    ttft: tuple[float, ...] = ()
    gaps: tuple[float, ...] = ()
    engine: EngineLoad | None = None
    """None if it could not be asked."""
    trying: bool = False
    """Whether calls wait for suspects to be tried: their times say nothing about the budget then."""
    pressure: Pressure = NO_PRESSURE
    """What lines met in the engine."""


@dataclass(frozen=True)
class Decision:
    """The budget from now on."""

    budget: int
    reason: Reason


class LineBudget:
    """One engine's batch budget, from 1/16 of n to n. `step` is called every `budget_seconds`."""

    def __init__(self, most_lines: int, kv_high: float = 0.9, *, share: float = 1.0, by_latency: bool = False) -> None:
        self._most = most_lines
        self._aimd = Aimd(most_lines, by_latency=by_latency)
        self._guard = KvGuard(most_lines, kv_high)
        self._knee = Knee(most_lines)
        self.search = SloSearch(most_lines, Slo(), share)
        self._called_at = -QUIET_SECONDS
        self._is_quiet = True

    def promise(self, slo: Slo) -> None:
        """What waiting calls were promised; the same promise again changes nothing."""
        if slo != self.search.slo:
            self.search.promise(slo)

    def step(self, seen: Observation) -> Decision:
        """Look at one step's observation and decide."""
        self._aimd.step(seen.lines, seen.pressure)
        if seen.calls or seen.ttft or seen.gaps:
            self._called_at, self._is_quiet = seen.at, False
        elif seen.at - self._called_at >= QUIET_SECONDS:
            self._is_quiet = True
        if self._is_quiet:
            self._guard.look_away()
            self._knee.stop()
            self.search.forget()
            return self._taken(Decision(self._most, Reason.NO_CALLS))
        if seen.engine:
            self._guard.step(seen.lines, seen.engine.running, seen.engine.kv_usage, seen.engine.preemptions)
        return self._least(self._promised(seen) if self.search.evidence else self._unpromised(seen))

    def call_came(self) -> Decision:
        """A waiting call is at the gate: at once what was learned, not at the next step."""
        self._is_quiet = False
        return self._least(self._learned())

    def _least(self, wanted: Decision) -> Decision:
        if self._guard.limit < wanted.budget:
            wanted = Decision(self._guard.limit, Reason.KV)
        return self._taken(wanted)

    def _taken(self, wanted: Decision) -> Decision:
        """No more than the engine takes."""
        if self._aimd.limit < wanted.budget:
            return Decision(self._aimd.limit, Reason.SLOW if self._aimd.slow else Reason.REFUSED)
        return wanted

    def _unpromised(self, seen: Observation) -> Decision:
        """What brings the most tokens a second, where nobody was promised anything."""
        knee = self._knee
        if seen.trying or self._guard.limit < self._most:
            knee.stop()
        elif seen.engine:
            knee.step(seen.at, seen.lines, seen.engine.tokens)
        return self._learned()

    def _promised(self, seen: Observation) -> Decision:
        """What the promise allows, whatever the cache bears."""
        search = self.search
        if seen.trying:
            search.forget()
        else:
            search.step(seen.at, seen.lines, seen.ttft, seen.gaps)
        return self._learned()

    def _learned(self) -> Decision:
        search, knee = self.search, self._knee
        if not search.evidence:
            if knee.is_trying:
                return Decision(knee.budget, Reason.TRYING)
            return Decision(knee.standing, Reason.ALL if knee.standing == self._most else Reason.KNEE)
        if search.budget == self._most:
            return Decision(self._most, Reason.ALL)
        if search.is_probing:
            return Decision(search.budget, Reason.PROBING)
        return Decision(search.budget, Reason.SLO_ITL if search.broken == "itl" else Reason.SLO_TTFT)
