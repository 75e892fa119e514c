"""The SLO search: the largest number of batch lines beside which waiting calls keep their promise.

    held        more is known to be too much: wait, and try again later
    probing     nothing is known above: samples are collected, and each good verdict raises a little
    too much    a bad verdict lowers, by as much as the promise is missed, and notes where

What was too much is believed for a minute, then a small step up is tried. Each time it proves too much again it is
believed twice as long, so a promise that lies between two steps is not tried for ever. A bad verdict where a good one
was given before means that the load has changed (or one of 500 chances): it lowers by an eighth, and a second one
without mercy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from penstock.domain.calls.ingress import Slo
from penstock_worker.admission.gate import least_lines
from penstock_worker.budget.slo_test import SloTest, SloVerdict

_FIRST_BELIEF_SECONDS: Final = 60.0
_LONGEST_BELIEF_SECONDS: Final = 240.0
_MOST_SHRINK: Final = 0.5
# Fewer lines than this part of the budget, and the samples say nothing about the budget, only about those lines.
_IN_FORCE: Final = 0.9
# A promise that is kept with this much to spare allows larger steps.
_EASY: Final = 0.8


class SloSearch:
    """One promise, one engine, n lines at most; `budget` is what was learned.

    What is seen may last this `share` of what is promised: the rest is for what is not seen.
    """

    def __init__(self, most_lines: int, slo: Slo, share: float = 1.0) -> None:
        self._most = most_lines
        self._share = share
        self._least = least_lines(most_lines)
        self.stride = max(1, most_lines // 32)
        """The smallest step up or down."""
        self.budget = most_lines
        self.broken = ""
        """Which promise more lines broke: `ttft`, `itl`, or none."""
        self.promise(slo)

    def promise(self, slo: Slo) -> None:
        """What is promised from now on: what was learned under another promise is forgotten, but for the budget."""
        self.slo = slo
        self.evidence = {name: SloTest(self._share * seconds) for name, seconds in slo.seconds.items()}
        self._good = self._bad = self._last_bad = 0
        self._believed_until = 0.0
        self._belief_seconds = _FIRST_BELIEF_SECONDS
        # An eighth before anything is known, a stride once a limit was met, doubled while calls have much to spare.
        self._step = max(self.stride, self._most // 8)
        self.broken = ""
        self.forget()

    def forget(self) -> None:
        """Samples from now on are of other conditions."""
        for evidence in self.evidence.values():
            evidence.clear()
        self._settled = False
        self._lines_seen = self._steps = 0

    @property
    def is_probing(self) -> bool:
        """Whether nothing says that more would be too much."""
        return not self._bad and self.budget < self._most

    def step(self, at: float, lines: int, ttft: Sequence[float], gaps: Sequence[float]) -> None:
        """What one control step brought: `lines` are those in flight at its end, `at` is in seconds of any clock."""
        if lines > self.budget:
            self.forget()
            return
        if not self._settled:
            # In this step the last line above the budget went: its samples were taken in part before.
            self._settled = True
            return
        self._lines_seen += lines
        self._steps += 1
        for name, samples in (("ttft", ttft), ("itl", gaps)):
            if name in self.evidence:
                self.evidence[name].add(samples)
        if self._bad and at > self._believed_until:
            self._bad, self._step = 0, self.stride
        self._judge(at)

    def _judge(self, at: float) -> None:
        verdicts = {name: evidence.verdict for name, evidence in self.evidence.items() if len(evidence)}
        load = round(self._lines_seen / self._steps)
        for wanted in (SloVerdict.BAD, SloVerdict.JUST_BAD):
            if name := next((name for name, verdict in verdicts.items() if verdict is wanted), ""):
                self._lower(at, load, name, just=wanted is SloVerdict.JUST_BAD)
                return
        if verdicts and all(verdict is SloVerdict.GOOD for verdict in verdicts.values()):
            self._raise(load)

    def _lower(self, at: float, load: int, name: str, *, just: bool) -> None:
        evidence = self.evidence[name]
        missed = evidence.limit_seconds / evidence.p95 if evidence.p95 else 1.0
        if load < self._least:  # There is hardly a line in the engine: it is not for them that the calls wait.
            self.forget()
            return
        self._believe(at, load)
        if just:
            lower = load - self.stride
        elif self._good >= load:
            lower = load - max(self.stride, load // 8)
        else:
            lower = min(load - self.stride, int(load * max(missed, _MOST_SHRINK)))
            if self._good:
                # Good was seen below, so the limit lies between: not below what was good.
                lower = max(lower, (self._good + load) // 2 if load - self._good > 2 * self.stride else self._good)
        if self._good >= load:
            self._good = 0
        self.broken = name
        self._set(max(self._least, lower))

    def _believe(self, at: float, load: int) -> None:
        """Note what was too much; what was so before, within a stride, is believed twice as long."""
        again = self._last_bad and abs(load - self._last_bad) <= self.stride
        self._belief_seconds = (
            min(2 * self._belief_seconds, _LONGEST_BELIEF_SECONDS) if again else _FIRST_BELIEF_SECONDS
        )
        self._bad = self._last_bad = load
        self._believed_until = at + self._belief_seconds

    def _raise(self, load: int) -> None:
        self._good = max(self._good, load)
        if load < _IN_FORCE * self.budget or self.budget == self._most:
            self._begin_again()
            return
        if self._bad:
            gap = self._bad - self.budget
            if gap <= self.stride:
                self._begin_again()
                return
            higher = self.budget + max(self.stride, gap // 2)
        else:
            higher = self.budget + self._step
            self._step = max(self.stride, min(2 * self._step, self.budget // 4)) if self._is_easy else self.stride
        self._set(min(self._most, higher))

    @property
    def _is_easy(self) -> bool:
        """Whether the promise is kept with much to spare."""
        return all(evidence.p95 < _EASY * evidence.limit_seconds for evidence in self.evidence.values())

    def _begin_again(self) -> None:
        """Begin a new window under the same conditions."""
        self.forget()
        self._settled = True

    def _set(self, budget: int) -> None:
        self.budget = budget
        self.forget()
