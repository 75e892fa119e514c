"""The scheduler hook: what Penstock changes in vLLM's scheduler, around two of its methods.

Before each step the rules say who takes part (step_time_slicing.py) and how much of lines' prompts (prefill_budget.py).
It is done by what vLLM has itself: a request that runs is not scheduled before its `next_decode_eligible_step`, one
that waits is not in its queue meanwhile, and `max_num_scheduled_tokens` bounds a step
(vllm/v1/core/sched/scheduler.py). A vLLM without that is left as it is, and after a failure here its own order holds.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from penstock.domain.work.rank import Rank
from penstock_worker.engine.vllm import prefill_budget, step_time_slicing
from penstock_worker.engine.vllm.prefill_budget import PrefillBudget, StepLoad, StepTerms
from penstock_worker.engine.vllm.step_time_slicing import StepTimeSlicing

_FIRST_LINE: Final = Rank.PRIORITY.priority(ahead=True)
_MOST_WAITING: Final = 512
"""Of more, vLLM's queue takes too long to be looked through before each step; the gate lets few wait there."""
_TURNS_BY: Final = ("next_decode_eligible_step",)
_BUDGET_BY: Final = (*_TURNS_BY, "max_num_scheduled_tokens", "is_prefill_chunk")
R = TypeVar("R")

log = logging.getLogger("vllm.penstock.scheduler")


class StepRules:
    """Those of one scheduler; a rule that is None is not there."""

    def __init__(self, slicing: StepTimeSlicing | None, budget: PrefillBudget | None) -> None:
        self._slicing, self._budget = slicing, budget

    def begin(self, scheduler: Any) -> tuple[list[Any], int]:
        """Let those sit out the next step who may not take part: those of them who wait, taken out of their queue.

        And the most tokens that it may take.
        """
        running, queue = scheduler.running, scheduler.waiting
        queued = getattr(queue, "_heap", queue)  # in no order: iterating over vLLM's own queue sorts it, at each step
        if scheduler.lora_config and _adapters(running, queued) > scheduler.lora_config.max_loras:
            # vLLM counts only adapters of those who take part: more could get in than it has room for.
            return [], scheduler.max_num_scheduled_tokens
        waiting = list(queued) if len(queue) <= _MOST_WAITING else []
        last = sys.maxsize
        terms = self._budget.terms(_load(running, waiting)) if self._budget else StepTerms()
        if self._slicing:
            lines = [request.priority for request in running if request.priority >= _FIRST_LINE]
            last = self._slicing.last(lines, [request.priority for request in waiting])
            if not terms.lines:
                self._slicing.skip()
        if terms.most_tokens is not None:  # rows first: nobody's next token waits behind a long prompt
            running.sort(key=lambda request: request.priority >= _FIRST_LINE and request.is_prefill_chunk)
        for request in running:
            sits_out = request.priority > last
            if request.priority >= _FIRST_LINE:
                sits_out = sits_out or not (terms.begun_prompts if request.is_prefill_chunk else terms.lines)
            if sits_out:
                request.next_decode_eligible_step = max(request.next_decode_eligible_step, scheduler.current_step + 2)
        aside = [request for request in waiting if request.priority > last]
        if aside:
            queue.remove_requests(aside)
        most = scheduler.max_num_scheduled_tokens
        return aside, most if terms.most_tokens is None else min(most, terms.most_tokens)

    def made(self, step: Any) -> None:
        """The step is under way."""
        for rule in (self._slicing, self._budget):
            if rule:
                rule.made(step)

    def ended(self, step: Any) -> None:
        """The step is over."""
        for rule in (self._slicing, self._budget):
            if rule:
                rule.ended(step)


def _load(running: list[Any], waiting: list[Any]) -> StepLoad:
    calls = call_rows = call_tokens = line_rows = begun_lines = 0
    for request in running:
        if request.priority >= _FIRST_LINE:
            begun_lines += request.is_prefill_chunk
            line_rows += not request.is_prefill_chunk
            continue
        calls += 1
        if request.is_prefill_chunk:
            call_tokens += request.num_tokens - request.num_computed_tokens
        else:
            call_rows += 1
    for request in waiting:
        if request.priority < _FIRST_LINE:
            calls += 1
            call_tokens += request.num_tokens - request.num_computed_tokens
    return StepLoad(calls, call_rows, call_tokens, line_rows, begun_lines)


def _adapters(running: Iterable[Any], waiting: Iterable[Any]) -> int:
    everybody = itertools.chain(running, waiting)
    return len({request.lora_request.lora_int_id for request in everybody if request.lora_request})


def _may_be_bounded(scheduler: Any) -> bool:
    """Whether prompts are computed in parts of any length, and rows are one token each; else a bound keeps some out."""
    config = scheduler.scheduler_config
    whole = not config.enable_chunked_prefill or config.disable_chunked_mm_input
    return not (whole or scheduler.need_mamba_block_aligned_split or scheduler.num_spec_tokens)


def register() -> None:
    """Change vLLM's scheduler in a process that may have one, if it was told to."""
    part = int(os.environ.get(step_time_slicing.VARIABLE) or 0)
    bounded = os.environ.get(prefill_budget.VARIABLE) == "on"
    if (part < 2 and not bounded) or "vllm.v1.engine.core" not in sys.modules:  # other processes need not load it
        return
    from vllm.v1.core.sched.scheduler import Scheduler

    source = inspect.getsource(Scheduler.schedule)
    turns = part >= 2 and _has(source, _TURNS_BY, "lanes take no turns in its steps")
    bounded = bounded and _has(source, _BUDGET_BY, "the prompts of lines are not bounded beside waiting calls")
    if not (turns or bounded):
        return
    install(Scheduler, functools.partial(_rules, part if turns else 0, bounded))
    if turns:
        log.info("Beside more urgent lines those of less urgent lanes get one in %d seconds.", part)
    if bounded:
        log.info("Beside waiting calls the prompts of lines are bounded.")


def _rules(part: int, bounded: bool, scheduler: Any) -> StepRules:
    budget = PrefillBudget() if bounded and _may_be_bounded(scheduler) else None
    return StepRules(StepTimeSlicing(part) if part else None, budget)


def _has(source: str, names: Sequence[str], otherwise: str) -> bool:
    missing = [name for name in names if name not in source]
    if missing:
        log.warning("This vLLM's scheduler has no %s: %s.", ", ".join(missing), otherwise)
    return not missing


def install(scheduler: Any, rules: Callable[[Any], StepRules]) -> None:
    """Put rules around two methods of a class of schedulers. A failure of ours ends them, and no engine."""
    schedule, update = scheduler.schedule, scheduler.update_from_output

    def safely(scheduler: Any, call: Callable[[StepRules], R], otherwise: R) -> R:
        try:
            if not hasattr(scheduler, "penstock_rules"):
                scheduler.penstock_rules = rules(scheduler)
            return call(scheduler.penstock_rules) if scheduler.penstock_rules else otherwise
        except Exception:
            scheduler.penstock_rules = None
            log.exception("Steps are vLLM's own from now on: lanes take no turns, prompts of lines are not bounded.")
            return otherwise

    @functools.wraps(schedule)
    def schedule_by_rules(self: Any, *args: Any, **kwargs: Any) -> Any:
        most = self.max_num_scheduled_tokens
        nothing: tuple[list[Any], int] = [], most
        aside, self.max_num_scheduled_tokens = safely(self, lambda rules: rules.begin(self), nothing)
        try:
            step = schedule(self, *args, **kwargs)
        finally:
            self.max_num_scheduled_tokens = most
            for request in aside:
                self.waiting.add_request(request)
        safely(self, lambda rules: rules.made(step), None)
        return step

    @functools.wraps(update)
    def update_by_rules(self: Any, step: Any, *args: Any, **kwargs: Any) -> Any:
        safely(self, lambda rules: rules.ended(step), None)
        return update(self, step, *args, **kwargs)

    scheduler.schedule, scheduler.update_from_output = schedule_by_rules, update_by_rules
