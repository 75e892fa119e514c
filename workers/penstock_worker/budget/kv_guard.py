"""The guard of the KV cache: fewer batch lines before the engine has to throw running ones out.

A preempted request begins anew: its work is lost, and waiting calls wait for that work too. So the limit falls to
nine tenths of what runs as soon as the cache is fuller than `high`, fills so fast that it would be full within a step,
or something was preempted; and falls again only once that is in force and did not help. It rises by a small step
whenever the cache, as full as it is for each line now, would hold that many lines.

While nobody calls it looks away, see line_budget.py: the engine lets requests in as they fit, and each block that stays
empty would be throughput given away.
"""

from __future__ import annotations

from typing import Final

from penstock_worker.admission.gate import least_lines

_FULL: Final = 0.97
_SHRINK: Final = 0.9
# Room between where it may rise and where it falls, so that it does neither.
_CALM: Final = 0.05
_CALM_STEPS: Final = 5


class KvGuard:
    """The most batch lines that the engine's cache bears, as far as is known: `limit`, n if nothing is."""

    def __init__(self, most_lines: int, high: float) -> None:
        self._most = most_lines
        self._least = least_lines(most_lines)
        self._step = max(1, most_lines // 64)
        self._high = high
        self._usage: float | None = None
        self._preemptions: int | None = None
        self._calm_steps = 0
        self.limit = most_lines

    def look_away(self) -> None:
        """The next step's rise and preemptions are not those of one step."""
        self._usage = self._preemptions = None
        self._calm_steps = 0

    def step(self, lines: int, running: int, usage: float, preemptions: int) -> None:
        """What the engine said; `running` counts all its requests, `preemptions` since it began."""
        rise = usage - self._usage if self._usage is not None else 0.0
        # A count that is smaller than before is of a new engine.
        thrown_out = 0 if self._preemptions is None else preemptions - self._preemptions
        self._usage, self._preemptions = usage, preemptions
        if usage > self._high or usage + rise > _FULL or thrown_out > 0:
            self._calm_steps = 0
            if lines <= self.limit:
                self.limit = max(self._least, int(min(lines, max(running, 1), self.limit) * _SHRINK))
            return
        self._calm_steps += 1
        if self.limit < self._most and self._calm_steps >= _CALM_STEPS:
            wanted = min(self._most, self.limit + self._step)
            if usage * wanted / max(lines, 1) < self._high - _CALM:
                self.limit = wanted
