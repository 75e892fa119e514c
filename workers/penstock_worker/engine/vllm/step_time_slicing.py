"""Step time slicing: while an engine runs lines that go first, those behind them get a part of its time, and no more.

vLLM's priority says who is let in first, and who is thrown out when the KV cache is full; whoever is in runs along in
every step, so fifty urgent lines beside a hundred others take as long as a hundred and fifty. With time slicing

    lines of less urgent lanes            get an eighth of the time: the urgent ones run almost as if alone
    those whom others of their lane pass  get half of it: a tenant's that holds more than an equal share of the engine,
                                          beside another's that came in beyond the budget for that (gate.py)

and stand still in all other steps. They lose nothing: they keep their places and their cache, and go on as soon as the
others are done. Waiting calls hold nobody back, and nobody holds them.

scheduler_hook.py has it done.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from penstock_worker.engine.launch_spec import BadLaunch

VARIABLE: Final = "PENSTOCK_ENGINE_STEP_SHARE"
PART: Final = 8
"""Less urgent lanes get one in so many seconds."""
_MOST_PART: Final = 1_000


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What an engine's environment gets that schedules by priority.

    An operator's own number stands: the part of the time that less urgent lanes get, 0 for none. Raises
    BadLaunch.
    """
    said = environ.get(VARIABLE) or str(PART)
    if not said.isdecimal() or int(said) > _MOST_PART:
        raise BadLaunch(f"{VARIABLE} must be a whole number from 0 to {_MOST_PART}, not {said!r}.")
    return {VARIABLE: said}


class Behind(Enum):
    """Why a line goes behind others that run."""

    LANE = "its lane is less urgent"
    SHARE = "its tenant holds more than an equal share"


@dataclass(eq=False)
class Account:
    """What those who go behind for one reason had of the time, since they do."""

    share: float
    total_seconds: float = 0.0
    taken_seconds: float = 0.0
    steps_under_way: int = 0
    """That they take part in: what these will cost is not known yet."""

    @property
    def is_due(self) -> bool:
        """Whether they may take part in the next step."""
        return not self.steps_under_way and self.taken_seconds < self.share * self.total_seconds


class StepTimeSlicing:
    """Those of one scheduler: `last` comes before it makes a step, then `made`, and `ended` when the step is over."""

    def __init__(self, part: int) -> None:
        self._shares = {Behind.LANE: 1 / part, Behind.SHARE: 1 / 2}
        self._accounts: dict[Behind, Account] = {}
        self._next: list[Account] = []
        self._under_way: dict[int, list[Account]] = {}
        self._ended_at = time.monotonic()

    def last(self, running: Sequence[int], waiting: Sequence[int] = ()) -> int:
        """The last priority that takes part in the next step, by the priorities of lines that run, and of all who wait.

        Who goes first is told by those who run: one who waits for room can't be kept from it by those who hold it.
        """
        first = min(running, default=sys.maxsize)
        others = sorted({priority for priority in (*running, *waiting) if priority > first}, reverse=True)
        behind = {_behind(first, priority): priority for priority in others}  # the first ones of each kind stay
        self._accounts = {why: self._accounts.get(why) or Account(self._shares[why]) for why in behind}
        late = [behind[why] for why, account in self._accounts.items() if not account.is_due]
        last = min(late) - 1 if late else sys.maxsize
        self._next = [account for why, account in self._accounts.items() if behind[why] <= last]
        return last

    def skip(self) -> None:
        """No line takes part in the next step, whoever may by this rule."""
        self._next = []

    def made(self, step: object) -> None:
        """The step is under way."""
        self._under_way[id(step)] = self._next
        for account in self._next:
            account.steps_under_way += 1

    def ended(self, step: object) -> None:
        """A step is over: they end one after the other, so it took as long as it is since the one before it ended."""
        now = time.monotonic()
        seconds, self._ended_at = now - self._ended_at, now
        for account in self._accounts.values():
            account.total_seconds += seconds
        for account in self._under_way.pop(id(step), ()):
            account.taken_seconds += seconds
            account.steps_under_way -= 1


def _behind(first: int, priority: int) -> Behind:
    return Behind.SHARE if (first + 1) // 2 == (priority + 1) // 2 else Behind.LANE
