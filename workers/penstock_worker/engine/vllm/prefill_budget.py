"""The prefill budget: how many tokens of batch lines' prompts a step may compute while waiting calls are present.

A call waits for the end of the step that it meets, and of its own. A step computes one token of each request that runs,
and of prompts whatever fits into `max_num_batched_tokens`: on a CPU 2,000 tokens make it six times as long. So while
calls are present, and for some seconds after the last one,

    a step with prompts of calls    takes no prompts of lines along; and no line at all, where what these cost is more
                                    than a step without anything: then the engine loses less than the call wins
    another step                    takes so many tokens of lines' prompts that it is twice as long as without

by what steps took lately (step_cost.py). Nobody is bounded where a step takes as long with many prompts as with few.
Lines are kept out for half of the time at most; when no call is present vLLM's own bound holds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from penstock_worker.engine.launch_spec import BadLaunch
from penstock_worker.engine.vllm.step_cost import StepMeter

VARIABLE: Final = "PENSTOCK_ENGINE_PREFILL_BUDGET"
_CALM_SECONDS: Final = 5.0
"""So long after the last call lines' prompts are bounded."""
_LONGER: Final = 2.0
_LEAST_TOKENS: Final = 16
_MOST_TOKENS: Final = 1_000_000
_SHARE: Final = 0.5
_MOST_CREDIT_SECONDS: Final = 1.0
_TYPICAL_STEPS: Final = 256
"""So many steps ago counts 1/e: how many lines run, where they come in waves."""


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What an engine's environment gets that schedules by priority: the operator's own word, `on` or `off`, else `on`.

    Raises BadLaunch.
    """
    said = environ.get(VARIABLE) or "on"
    if said not in ("on", "off"):
        raise BadLaunch(f"{VARIABLE} must be on or off, not {said!r}.")
    return {VARIABLE: said}


@dataclass(frozen=True)
class StepLoad:
    """What a scheduler has before a step."""

    calls: int
    """Waiting calls that run or wait."""
    call_rows: int
    """Of them, those whose next token is computed."""
    call_tokens: int
    """Of their prompts, left to compute."""
    line_rows: int
    begun_lines: int = 0
    """Lines whose prompts are half computed."""


@dataclass(frozen=True)
class StepTerms:
    """What a step may compute."""

    lines: bool = True
    """Whether lines take part."""
    begun_prompts: bool = True
    """Whether lines go on whose prompts are half computed."""
    most_tokens: int | None = None
    """All tokens of the step; None: as many as vLLM takes."""


class PrefillBudget:
    """That of one scheduler: `terms` comes before it makes a step, then `made`, and `ended` when the step is over."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._meter = StepMeter()
        self._called_at = -math.inf
        self._typical_rows = 0.0
        self._credit_seconds, self._credit_at = _MOST_CREDIT_SECONDS, clock()
        self._keeps_out = False
        self._call_tokens = 0
        self._in_vain: int | None = None
        """Left of calls' prompts when a step without lines computed none of them: what they wait for, lines hold."""
        self._under_way: dict[int, tuple[float, bool]] = {}
        self._ended_at = clock()

    def terms(self, load: StepLoad) -> StepTerms:
        """What the next step may compute."""
        now = self._clock()
        self._typical_rows = max(load.line_rows, self._typical_rows * (1 - 1 / _TYPICAL_STEPS))
        self._keeps_out = False
        self._call_tokens = load.call_tokens
        if load.calls:
            self._called_at = now
        cost = self._meter.cost
        if cost is None or not cost.prompt or now - self._called_at > _CALM_SECONDS:
            return StepTerms()
        rows = load.call_rows + load.line_rows
        if load.call_tokens not in (0, self._in_vain) and self._credit(now) > 0:
            self._keeps_out = True
            if cost.row * load.line_rows > cost.base:
                return StepTerms(lines=False, begun_prompts=False, most_tokens=load.call_rows + load.call_tokens)
            return StepTerms(begun_prompts=False, most_tokens=rows + load.call_tokens)
        longest = _LONGER * cost.of(max(rows, self._typical_rows), 0)
        prompts = int(min((longest - cost.of(rows, 0)) / cost.prompt, _MOST_TOKENS))
        calls = 0 if load.begun_lines else load.call_tokens  # what is begun goes first, and would take theirs
        return StepTerms(most_tokens=rows + calls + max(prompts, _LEAST_TOKENS))

    def made(self, step: Any) -> None:
        """The step is under way."""
        if self._keeps_out:
            computed = any(count > 1 for count in step.num_scheduled_tokens.values())
            self._in_vain = None if computed else self._call_tokens
        self._under_way[id(step)] = self._clock(), self._keeps_out

    def ended(self, step: Any) -> None:
        """A step is over: it began when the one before it ended, if that was later than when it was made."""
        now = self._clock()
        made_at, kept_out = self._under_way.pop(id(step), (now, False))
        seconds = now - max(made_at, self._ended_at)
        self._ended_at = now
        if step.num_scheduled_tokens:
            self._meter.seen(step.num_scheduled_tokens.values(), seconds)
        if kept_out:
            self._credit_seconds = self._credit(now) - seconds

    def _credit(self, now: float) -> float:
        """For how long lines may be kept out now."""
        earned = _SHARE * (now - self._credit_at)
        self._credit_seconds, self._credit_at = min(_MOST_CREDIT_SECONDS, self._credit_seconds + earned), now
        return self._credit_seconds
