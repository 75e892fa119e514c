"""The knee: the fewest batch lines that bring as many tokens a second as more would. More only wait for each other.

    resting    the budget stands; only steps count in which it was the limit
    trying     the budget and one step beside it take turns, five windows each; the engine's own counter says which of
               each two neighbours was faster

A step down is kept if it loses nothing, a step up if it gains. A trial costs what the worse side loses in its windows,
so one that plainly loses ends with its first pair, and after one that changed nothing the next comes later, twice as
late each time. While nobody calls there is nothing to win, and nothing is tried. Tokens a second are measured, as they
depend on the hardware, the model and the lengths of the day; what the lines in flight should be is then no constant.
"""

from __future__ import annotations

import statistics
from enum import StrEnum
from typing import Final

from penstock_worker.admission.gate import least_lines

PAIRS: Final = 5
WINDOW_SECONDS: Final = 6.0
FIRST_REST_SECONDS: Final = 45.0
LONGEST_REST_SECONDS: Final = 1_800.0
# A window begins when the lines have followed the budget; if they don't for so long, nothing can be learned now.
_MOST_SETTLING_SECONDS: Final = 20.0
_STEP: Final = 0.75
_IN_FORCE: Final = 0.95
# With 5 % of noise in a pair, a step down that loses 4 % passes in one of 25 trials.
_KEEPS: Final = 0.99
_SLIPS: Final = 0.98
_GAINS: Final = 1.02
_PLAINLY_LOSES: Final = 0.9


class _Side(StrEnum):
    STANDING = "standing"
    TRIED = "tried"


class Knee:
    """The search over one engine's budgets, from a quarter of n to n. `step` is called every second or so."""

    def __init__(self, most_lines: int) -> None:
        self._most = most_lines
        self._least = max(least_lines(most_lines), most_lines // 4)
        self.standing = most_lines
        """The budget that is known to be best."""
        self._tried = most_lines
        self._side = _Side.STANDING
        self._rest_seconds = FIRST_REST_SECONDS
        self._rested_seconds = 0.0
        self._down = True
        self._last: tuple[float, int] | None = None
        self._rates: dict[_Side, list[float]] = {}
        self._begin_window(0.0)

    @property
    def is_trying(self) -> bool:
        """Whether a trial is under way."""
        return bool(self._rates)

    @property
    def budget(self) -> int:
        """The lines that may be in flight now."""
        return self._tried if self._side is _Side.TRIED else self.standing

    def step(self, at: float, lines: int, tokens: int) -> None:
        """What one control step saw: lines in flight at its end, tokens that the engine has processed in all."""
        if self._last and tokens < self._last[1]:  # a new engine counts from 0
            self.stop()
        last, self._last = self._last, (at, tokens)
        if last is None:
            return
        passed, done = at - last[0], tokens - last[1]
        if not self.is_trying:
            self._rest(at, passed, lines)
        elif _IN_FORCE * self.budget <= lines <= self.budget:
            self._measure(at, passed, done)
        elif at - self._window_began > _MOST_SETTLING_SECONDS:
            self._put_off()

    def stop(self) -> None:
        """End a trial without a verdict: conditions changed, or what is measured is not the budget's doing."""
        self._last = None
        self._rates = {}
        self._side = _Side.STANDING
        self._rested_seconds = 0.0

    def _rest(self, at: float, passed: float, lines: int) -> None:
        if lines >= _IN_FORCE * self.standing:
            self._rested_seconds += passed
        if self._rested_seconds < self._rest_seconds:
            return
        self._rested_seconds = 0.0
        if self.standing in (self._least, self._most):
            self._down = self.standing == self._most
        part = _STEP if self._down else 1.0 / _STEP
        self._tried = min(self._most, max(self._least, round(self.standing * part)))
        if self._tried != self.standing:
            self._rates = {_Side.STANDING: [], _Side.TRIED: []}
            self._begin_window(at)

    def _put_off(self) -> None:
        self.stop()
        self._rest_seconds = min(2 * self._rest_seconds, LONGEST_REST_SECONDS)

    def _begin_window(self, at: float) -> None:
        self._window_began = at
        self._settled = False
        self._seconds = 0.0
        self._tokens = 0

    def _measure(self, at: float, passed: float, done: int) -> None:
        if not self._settled:  # in this step the lines were still on their way to the budget
            self._settled = True
            return
        self._seconds += passed
        self._tokens += done
        if self._seconds < WINDOW_SECONDS:
            return
        self._rates[self._side].append(self._tokens / self._seconds)
        if self._side is _Side.TRIED and (self._is_hopeless or len(self._rates[_Side.TRIED]) == PAIRS):
            self._judge()
            return
        self._side = _Side.TRIED if self._side is _Side.STANDING else _Side.STANDING
        self._begin_window(at)

    @property
    def _ratios(self) -> list[float]:
        pairs = zip(self._rates[_Side.TRIED], self._rates[_Side.STANDING], strict=True)
        return [tried / max(standing, 1.0) for tried, standing in pairs]

    @property
    def _is_hopeless(self) -> bool:
        return statistics.mean(self._ratios) < _PLAINLY_LOSES

    def _judge(self) -> None:
        ratios = sorted(self._ratios)
        if self._is_hopeless:
            better = False
        elif self._down:
            better = statistics.mean(ratios) >= _KEEPS and ratios[1] >= _SLIPS
        else:
            better = statistics.mean(ratios) >= _GAINS and ratios[1] > 1.0
        if not better:
            self._down = not self._down
            self._put_off()
            return
        self.standing = self._tried
        self._rest_seconds = FIRST_REST_SECONDS
        self.stop()
