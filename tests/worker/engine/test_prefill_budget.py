"""Prompts of lines wait beside calls, by what steps cost and for half of the time at most; else nothing is bounded."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest

from penstock_worker.engine.launch_spec import BadLaunch
from penstock_worker.engine.vllm.prefill_budget import VARIABLE, PrefillBudget, StepLoad, StepTerms, environment
from penstock_worker.engine.vllm.step_cost import StepCost, StepMeter

CPU = StepCost(0.007, 0.000_18, 0.000_09)
"""As measured: vLLM with the tiny model on two cores."""
GPU = StepCost(0.02, 0.000_01, 0.000_000_5)
LINES = 128
ALONE = StepLoad(0, 0, 0, LINES)


@dataclass
class Step:
    """A step as vLLM makes it: the tokens of each request."""

    num_scheduled_tokens: dict[str, int]


class Engine:
    """One whose steps take what their cost says; its lines always have prompts that wait."""

    def __init__(self, cost: StepCost) -> None:
        self.now, self.cost = 100.0, cost
        self.budget = PrefillBudget(lambda: self.now)
        noise = random.Random(1)
        for _ in range(200):  # it learns
            self.step(StepLoad(0, 0, 0, noise.randrange(LINES)), noise.choice([0, 0, 40, 900]))

    def step(self, load: StepLoad, line_prompts: int = 2_000) -> tuple[StepTerms, float]:
        """Make one, with as much of lines' prompts as is allowed: its terms, and how long it took."""
        terms = self.budget.terms(load)
        rows = load.call_rows + load.line_rows * terms.lines
        prompt = load.call_tokens + line_prompts
        if terms.most_tokens is not None:
            prompt = min(prompt, terms.most_tokens - rows)
        step = Step({f"row{n}": 1 for n in range(rows)} | ({"prompt": prompt} if prompt > 1 else {}))
        self.budget.made(step)
        took = self.cost.of(rows, prompt)
        self.now += took
        self.budget.ended(step)
        return terms, took


def test_what_steps_cost_is_learned_from_them() -> None:
    meter = StepMeter()
    noise = random.Random(2)
    for _ in range(300):
        rows, prompt = noise.randrange(1, 128), noise.choice([0, 0, 200, 1_000])
        tokens = [1] * rows + ([prompt] if prompt else [])
        meter.seen(tokens, CPU.of(rows, prompt) * noise.uniform(0.8, 1.2))
    assert meter.cost == pytest.approx(CPU, rel=0.3)


def test_while_nobody_calls_vllms_own_bound_holds() -> None:
    engine = Engine(CPU)
    assert engine.step(ALONE)[0] == StepTerms()
    engine.step(StepLoad(1, 1, 0, LINES))
    assert engine.step(ALONE)[0].most_tokens, "a call was here just now"
    engine.now += 6
    assert engine.step(ALONE)[0] == StepTerms()


def test_a_calls_prompt_is_computed_without_lines_where_they_cost_more_than_a_step_does() -> None:
    engine = Engine(CPU)
    terms, took = engine.step(StepLoad(3, 2, 100, LINES))
    assert terms == StepTerms(lines=False, begun_prompts=False, most_tokens=102)
    assert took == pytest.approx(CPU.of(2, 100), rel=0.01)
    few = engine.step(StepLoad(3, 2, 100, 20))[0]
    assert few == StepTerms(lines=True, begun_prompts=False, most_tokens=20 + 102), "they cost less, and come along"


def test_beside_calls_a_step_is_twice_as_long_as_without_prompts_of_lines() -> None:
    engine = Engine(CPU)
    terms, took = engine.step(StepLoad(1, 1, 0, LINES))
    assert terms.lines
    assert terms.begun_prompts
    assert took == pytest.approx(2 * CPU.of(LINES + 1, 0), rel=0.02)
    _, after_a_wave = engine.step(StepLoad(1, 1, 0, 3))
    assert after_a_wave == pytest.approx(took, rel=0.05), "as long as with those who ran before: they come in again"


def test_where_prompts_cost_next_to_nothing_as_many_are_taken_as_fit() -> None:
    engine = Engine(GPU)
    terms, _ = engine.step(StepLoad(1, 1, 0, LINES))
    assert terms.most_tokens
    assert terms.most_tokens > 16_384
    assert engine.step(StepLoad(1, 0, 500, LINES))[0].lines, "a step without them would be as long"


@pytest.mark.parametrize("cost", [CPU, GPU])
def test_lines_are_kept_out_for_half_of_the_time_at_most(cost: StepCost) -> None:
    engine = Engine(cost)
    began, kept_out = engine.now, 0.0
    while engine.now - began < 60:
        terms, took = engine.step(StepLoad(40, 20, 400, LINES))
        kept_out += took * (not terms.begun_prompts)
    assert 0.4 < kept_out / (engine.now - began) < 0.6


def test_calls_that_wait_for_what_lines_hold_keep_none_of_them_out() -> None:
    engine = Engine(CPU)
    load = StepLoad(1, 0, 100, LINES)
    assert not engine.budget.terms(load).lines
    engine.budget.made(Step({}))  # no block of the KV cache is free
    assert engine.step(load)[0].lines
    assert not engine.step(replace(load, calls=2, call_tokens=150))[0].lines, "another call may come in"


def test_an_operators_word_stands() -> None:
    assert environment({}) == {VARIABLE: "on"}
    assert environment({VARIABLE: "off"}) == {VARIABLE: "off"}
    with pytest.raises(BadLaunch, match="must be on or off, not '8'"):
        environment({VARIABLE: "8"})
