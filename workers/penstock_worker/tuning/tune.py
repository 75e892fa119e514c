"""A tuning: search the grid → compare the best with the base in pairs → say what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from penstock_worker.engine.launch_spec import Launch
from penstock_worker.tuning import grid, trial, tuning_outcome
from penstock_worker.tuning.coordinate_search import TuningPoint, faster, search
from penstock_worker.tuning.grid import Coordinate
from penstock_worker.tuning.trial import TrialPlan
from penstock_worker.tuning.tuning_outcome import Say, TuningOutcome
from penstock_worker.tuning.verdict import MOST_PAIRS, judge

_FEWEST_LINES = 64
MOST_LINES = 100_000
"""A round's bodies are in memory: some hundred MB."""
_SEARCH_PART = 0.6
"""Of the time: the rest is for comparing in pairs."""


@dataclass(frozen=True)
class TuningTime:
    """How long it may take."""

    minutes: float
    clock: Callable[[], float] = time.monotonic

    def until(self, part: float) -> Callable[[], bool]:
        """Whether this part of the time, which begins now, is not over."""
        end = self.clock() + self.minutes * 60 * part
        return lambda: self.clock() < end


def lines_for(base: Launch, coordinates: Sequence[Coordinate]) -> int:
    """Twice as many as the point with the most sequences has at once: fewer would never show it full."""
    flag = grid.sequences_flag(base)
    tried = [int(value) for one in coordinates if one.flag == flag for value in one.values if value.isdecimal()]
    return min(MOST_LINES, max(_FEWEST_LINES, 2 * max([base.batch_slots, *tried])))


def tune(found: TuningOutcome, plan: TrialPlan, coordinates: Sequence[Coordinate], left: TuningTime, say: Say) -> None:
    """Fill in what is found; whoever interrupts it finds there what was known by then."""
    within = left.until(_SEARCH_PART)
    in_all = left.until(1.0)

    def note(point: TuningPoint) -> None:
        found.points.append(point)
        if point.tokens_per_second:  # for whoever interrupts it
            found.best = faster(found.best, point) if found.best else point
        say(tuning_outcome.progress(point, len(found.points)))

    def go_on() -> bool:
        if not within():
            found.cut = "Time was over before all of the grid was tried (--minutes)."
            return False
        return True

    found.best = search(found.base, coordinates, partial(trial.measure, plan), note, go_on)
    if found.best is None or not found.base_works or found.best.arguments == found.base:
        return
    _compare(found, found.best, plan, in_all, say)


def _compare(found: TuningOutcome, best: TuningPoint, plan: TrialPlan, go_on: Callable[[], bool], say: Say) -> None:
    """Start both in turns until it is clear which is faster."""
    pairs: list[tuple[float, float]] = []
    for number in range(1, MOST_PAIRS + 1):
        if not go_on():
            found.cut = "Time was over before it was clear (--minutes)."
            return
        sides = (found.base, best.arguments)
        # Other words than in the pair before, and the other one first.
        told = trial.speeds(plan, sides if number % 2 else sides[::-1], seed=100 + number)
        if told is None:
            found.cut = "One of the two did not work any more while they were compared."
            return
        base, point = told if number % 2 else told[::-1]
        pairs.append((base, point))
        found.verdict = judge(pairs)
        say(f"pair {number}: {base:,.0f} and {point:,.0f} tokens/s")
        if found.verdict.is_clear:
            _settle(found, pairs)
            return


def _settle(found: TuningOutcome, pairs: Sequence[tuple[float, float]]) -> None:
    """What both showed while they were compared is fairer than what chose one of them."""
    for place, arguments in enumerate((found.base, found.best.arguments if found.best else ())):
        mean = sum(pair[place] for pair in pairs) / len(pairs)
        for number, point in enumerate(found.points):
            if point.arguments == arguments:
                found.points[number] = replace(point, tokens_per_second=mean)
    found.best = next(one for one in found.points if found.best and one.arguments == found.best.arguments)
