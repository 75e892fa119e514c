"""A simulated plant for the line budget: an engine whose waiting calls are the slower the more batch lines are in it.

`python -m worker.plant` (in tests/) prints how the line budget does over many seeds: the table behind its constants.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from dataclasses import dataclass, field

from penstock.domain.calls.ingress import Slo
from penstock_worker.budget.line_budget import Decision, EngineLoad, LineBudget, Observation


@dataclass
class Plant:
    """p95 of TTFT is `base_ms + per_line_ms × lines`; a step is a second. Everything can be changed between steps."""

    line_budget: LineBudget
    base_ms: float = 50.0
    per_line_ms: float = 4.0
    spread: float = 0.4
    """Standard deviation of the logarithm of a call's time."""
    calls: float = 2.0
    """Mean calls a second."""
    demand: int = 10_000
    """Batch lines that there are to do."""
    kv_per_line: float = 0.0
    knee: int = 1_000
    """Lines from which on more bring no more tokens a second."""
    noise: float = 0.0
    """Standard deviation of a second's tokens, as a part of them."""
    drain: float = 0.15
    """Part of the lines in flight that come back within a step."""
    slo: Slo = field(default_factory=Slo)
    seed: int = 1

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._noise = random.Random(self.seed)
        self.at = 0.0
        self.lines = 0
        self.preemptions = self.tokens = 0
        self.over = self.asked = 0
        self.budgets: list[int] = []
        self.decision = Decision(10_000, "")  # type: ignore[arg-type]
        self.step()

    def _calls(self) -> int:
        count, left = 0, math.exp(-self.calls)
        product = self._chance.random()
        while product > left:
            product *= self._chance.random()
            count += 1
        return count

    def _time(self) -> float:
        p95_seconds = (self.base_ms + self.per_line_ms * self.lines) / 1000
        return p95_seconds * math.exp(self.spread * (self._chance.gauss(0, 1) - 1.645))

    def step(self, *, trying: bool = False) -> Decision:
        """One second: calls are answered, lines come back, the line budget decides, lines go in."""
        times = tuple(self._time() for _ in range(self._calls()))
        self.asked += len(times)
        self.over += sum(time > (self.slo.ttft_p95_ms or math.inf) / 1000 for time in times)
        usage = self.kv_per_line * self.lines
        if usage > 1.0:
            self.preemptions += math.ceil(self.lines * (1.0 - 1.0 / usage))
        self.line_budget.promise(self.slo)
        self.tokens += int(100 * min(self.lines, self.knee) * max(0.0, self._noise.gauss(1.0, self.noise)))
        engine = EngineLoad(self.lines, 0, min(usage, 1.0), self.preemptions, self.tokens)
        seen = Observation(self.at, self.lines, len(times), times, (), engine, trying)
        self.decision = self.line_budget.step(seen)
        self.budgets.append(self.decision.budget)
        self.at += 1.0
        most = min(self.decision.budget, self.demand)
        self.lines = max(most, int(self.lines * (1.0 - self.drain))) if self.lines > most else most
        return self.decision

    def run(self, steps: int) -> list[int]:
        """So many steps; their budgets."""
        self.over = self.asked = 0
        for _ in range(steps):
            self.step()
        return self.budgets[-steps:]

    @property
    def best(self) -> float:
        """The most lines that keep the promise."""
        return ((self.slo.ttft_p95_ms or math.inf) - self.base_ms) / self.per_line_ms


def main() -> None:
    """Budget over the best one, calls over the promise and moves of the budget, over steps 300 to 900 of 12 seeds."""
    print("calls/s  slo ms  spread  budget/best (worst)  over    moves")
    for calls in (1.0, 2.0, 4.0, 8.0):
        for slo, spread in ((200, 0.4), (300, 0.4), (400, 0.4), (300, 0.2), (300, 0.7)):
            shares, over, moves = [], [], []
            for seed in range(12):
                plant = Plant(LineBudget(128), calls=calls, spread=spread, slo=Slo(ttft_p95_ms=slo), seed=seed)
                plant.run(300)
                budgets = plant.run(600)
                shares.append(statistics.mean(budgets) / plant.best)
                over.append(plant.over / plant.asked)
                moves.append(sum(a != b for a, b in itertools.pairwise(budgets)))
            print(
                f"{calls:7g} {slo:7} {spread:7g} {statistics.mean(shares):12.2f} ({min(shares):.2f})"
                f" {statistics.mean(over):10.3f} {statistics.mean(moves):7.1f}"
            )


if __name__ == "__main__":
    main()
