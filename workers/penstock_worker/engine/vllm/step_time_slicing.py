"""Step time slicing: while an engine runs lines that go first, those behind them get a part of its time, and no more.

vLLM's priority says who is let in first, and who is thrown out when the KV cache is full; whoever is in runs along in
every step, so fifty urgent lines beside a hundred others take as long as a hundred and fifty. With time slicing

    lines of less urgent lanes            get an eighth of the time: the urgent ones run almost as if alone
    those whom others of their lane pass  get half of it: a tenant's that holds more than an equal share of the engine,
                                          beside another's that came in beyond the budget for that (gate.py)

and stand still in all other steps. They lose nothing: they keep their places and their cache, and go on as soon as the
others are done. Waiting calls hold nobody back, and nobody holds them.

It is done around two methods of vLLM's scheduler, by what it has for pipelines: a request that runs is not scheduled
before its `next_decode_eligible_step` (vllm/v1/core/sched/scheduler.py), and one that waits is not in its queue
meanwhile. A vLLM without that is left as it is, and after a failure here its own order holds.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar

from penstock.domain.work.rank import Rank
from penstock_worker.engine.launch_spec import BadLaunch

VARIABLE: Final = "PENSTOCK_ENGINE_STEP_SHARE"
PART: Final = 8
"""Less urgent lanes get one in so many seconds."""
_MOST_PART: Final = 1_000
_FIRST_LINE: Final = Rank.PRIORITY.priority(ahead=True)
_MOST_WAITING: Final = 512
"""Of more, vLLM's queue takes too long to be looked through before each step; the gate lets few wait there."""
_MARK: Final = "next_decode_eligible_step"
R = TypeVar("R")

log = logging.getLogger("vllm.penstock.turns")


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
    """Those of one scheduler: `begin` comes before it makes a step, then `made`, and `ended` when the step is over."""

    def __init__(self, part: int) -> None:
        self._shares = {Behind.LANE: 1 / part, Behind.SHARE: 1 / 2}
        self._accounts: dict[Behind, Account] = {}
        self._next: list[Account] = []
        self._under_way: dict[int, list[Account]] = {}
        self._ended_at = time.monotonic()

    def begin(self, scheduler: Any) -> list[Any]:
        """Let those who are not due sit out the next step; gives those of them who wait, taken out of their queue."""
        running = [request for request in scheduler.running if request.priority >= _FIRST_LINE]
        queue = scheduler.waiting
        # In no order: iterating over vLLM's own queue sorts it, before each step.
        waiting = list(getattr(queue, "_heap", queue)) if len(queue) <= _MOST_WAITING else []
        last = self.last([request.priority for request in running], [request.priority for request in waiting])
        for request in running:
            if request.priority > last:
                request.next_decode_eligible_step = max(request.next_decode_eligible_step, scheduler.current_step + 2)
        aside = [request for request in waiting if request.priority > last]
        if aside:
            queue.remove_requests(aside)
        return aside

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


def register() -> None:
    """Change vLLM's scheduler in a process that may have one, if it was told to."""
    part = int(os.environ.get(VARIABLE) or 0)
    if part < 2 or "vllm.v1.engine.core" not in sys.modules:  # other processes need not load it
        return
    from vllm.v1.core.sched.scheduler import Scheduler

    if _MARK not in inspect.getsource(Scheduler.schedule):
        log.warning("This vLLM's scheduler has no %s: lanes take no turns in its steps.", _MARK)
        return
    install(Scheduler, part)
    log.info("Beside more urgent lines those of less urgent lanes get one in %d seconds.", part)


def install(scheduler: Any, part: int) -> None:
    """Put turns around two methods of a class of schedulers. A failure of ours ends them, and no engine."""
    schedule, update = scheduler.schedule, scheduler.update_from_output

    def safely(scheduler: Any, call: Callable[[StepTimeSlicing], R], otherwise: R) -> R:
        if not hasattr(scheduler, "penstock_turns"):
            scheduler.penstock_turns = StepTimeSlicing(part)
        try:
            return call(scheduler.penstock_turns) if scheduler.penstock_turns else otherwise
        except Exception:
            scheduler.penstock_turns = None
            log.exception("Lanes take no turns any more.")
            return otherwise

    @functools.wraps(schedule)
    def schedule_in_turns(self: Any, *args: Any, **kwargs: Any) -> Any:
        aside: list[Any] = safely(self, lambda turns: turns.begin(self), [])
        try:
            step = schedule(self, *args, **kwargs)
        finally:
            for request in aside:
                self.waiting.add_request(request)
        safely(self, lambda turns: turns.made(step), None)
        return step

    @functools.wraps(update)
    def update_in_turns(self: Any, step: Any, *args: Any, **kwargs: Any) -> Any:
        safely(self, lambda turns: turns.ended(step), None)
        return update(self, step, *args, **kwargs)

    scheduler.schedule, scheduler.update_from_output = schedule_in_turns, update_in_turns
