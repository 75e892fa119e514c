"""Without metrics the budget follows what the engine refuses, and how long its answers take."""

from __future__ import annotations

from penstock_worker.admission.backpressure import Pressure
from penstock_worker.budget.aimd import Aimd
from penstock_worker.budget.line_budget import LineBudget, Observation, Reason


def met(seconds_per_token: float) -> Pressure:
    return Pressure(seconds_per_token=(seconds_per_token,) * 8)


def test_half_as_many_after_a_refusal_and_a_few_more_with_each_step_that_used_them_all() -> None:
    aimd = Aimd(64, by_latency=False)
    aimd.step(64, Pressure(refusals=1, lines=64))
    assert aimd.limit == 32
    aimd.step(32, Pressure())
    assert aimd.limit == 33
    aimd.step(3, Pressure())
    assert aimd.limit == 33, "what was not used was not tried"
    for _ in range(10):
        aimd.step(aimd.limit, Pressure(refusals=3, lines=aimd.limit))
    assert aimd.limit == 1, "one goes always"


def test_it_stays_around_what_an_engine_takes_at_once() -> None:
    aimd, room, seen = Aimd(128, by_latency=False), 10, []
    for _ in range(200):
        over = aimd.limit > room
        aimd.step(min(aimd.limit, room), Pressure(refusals=1, lines=aimd.limit) if over else Pressure())
        seen.append(aimd.limit)
    assert (min(seen[20:]), max(seen[20:])) == (6, 12), "a saw, from half of what was too much to that"


def test_answers_that_take_twice_as_long_lower_it_and_it_rises_again() -> None:
    aimd = Aimd(64, by_latency=True)
    for _ in range(5):
        aimd.step(64, met(0.1))
    assert (aimd.limit, aimd.slow) == (64, False)
    aimd.step(64, met(0.3))
    assert (aimd.limit, aimd.slow) == (57, True)
    aimd.step(57, met(0.1))
    assert aimd.limit == 58


def test_a_latency_that_stays_is_the_new_measure_and_takes_no_more_than_half() -> None:
    aimd, seen = Aimd(64, by_latency=True), []
    for step in range(120):
        aimd.step(aimd.limit, met(0.1 if step < 5 else 5.0))
        seen.append(aimd.limit)
    assert min(seen) >= 32
    assert seen[-1] == 64


def test_where_the_engine_says_how_loaded_it_is_latency_says_nothing() -> None:
    aimd = Aimd(64, by_latency=False)
    for seconds in (0.1, 0.1, 9.0):
        aimd.step(64, met(seconds))
    assert aimd.limit == 64


def test_the_budget_says_why_and_a_refusal_counts_while_nobody_calls() -> None:
    budget = LineBudget(64, by_latency=True)
    refused = Observation(at=1.0, lines=64, calls=0, pressure=Pressure(refusals=1, lines=64))
    assert (budget.step(refused).budget, budget.step(Observation(at=2.0, lines=0, calls=0)).reason) == (
        32,
        Reason.REFUSED,
    )
