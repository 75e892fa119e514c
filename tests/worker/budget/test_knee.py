"""The knee is found where more lines bring nothing, left alone where they do, and looked for ever more seldom."""

from __future__ import annotations

import statistics

import pytest
from worker.plant import Plant

from penstock.domain.calls.ingress import Slo
from penstock_worker.budget.knee import FIRST_REST_SECONDS, LONGEST_REST_SECONDS, WINDOW_SECONDS, Knee
from penstock_worker.budget.line_budget import LineBudget, Reason


def plant(**more: object) -> Plant:
    return Plant(LineBudget(128), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("knee", [50, 70])
def test_lines_that_bring_nothing_are_given_up_and_no_tokens_with_them(knee: int, seed: int) -> None:
    engine = plant(knee=knee, noise=0.03, seed=seed)
    engine.run(2_500)
    before = engine.tokens
    steady = engine.run(3_000)
    assert engine.decision.reason in (Reason.KNEE, Reason.TRYING)
    assert statistics.median(steady) <= 1.4 * knee
    assert (engine.tokens - before) / 3_000 >= 0.97 * 100 * knee


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("knee", [100, 1_000])
def test_where_more_lines_bring_more_the_budget_stays_and_trials_cost_little(knee: int, seed: int) -> None:
    engine = plant(knee=knee, noise=0.03, seed=seed)
    budgets = engine.run(3_600)
    assert engine.decision.reason in (Reason.ALL, Reason.TRYING)
    assert statistics.mean(budgets) > 0.96 * 128


def test_what_was_given_up_is_taken_again_when_it_brings_more() -> None:
    engine = plant(knee=60)
    engine.run(1_200)
    assert engine.decision.budget < 100
    engine.knee = 1_000
    engine.run(int(2 * LONGEST_REST_SECONDS))
    assert statistics.median(engine.run(300)) == 128


def test_trials_come_more_and_more_seldom_while_they_change_nothing() -> None:
    engine = plant()
    first, last = engine.run(1_800), engine.run(1_800)
    assert sum(budget < 128 for budget in first) > sum(budget < 128 for budget in last)


def test_a_trial_that_plainly_loses_ends_with_its_first_pair() -> None:
    engine = plant()
    budgets = engine.run(120)
    assert 0 < sum(budget < 128 for budget in budgets) <= 2 * WINDOW_SECONDS


def test_nothing_is_tried_while_nobody_calls_and_that_time_does_not_count_as_rest() -> None:
    engine = plant(calls=0.0)
    assert set(engine.run(1_000)) == {128}
    engine.calls = 4.0
    assert set(engine.run(int(FIRST_REST_SECONDS) - 5)) == {128}
    assert min(engine.run(30)) < 128


def test_nothing_is_tried_while_there_is_less_work_than_the_budget() -> None:
    engine = plant(demand=100)
    assert set(engine.run(1_000)) == {128}


def test_a_promise_to_waiting_calls_ends_the_search_and_the_budget_is_what_keeps_it() -> None:
    engine = plant(knee=50)
    engine.run(int(FIRST_REST_SECONDS) + 20)
    assert engine.decision.reason is Reason.TRYING
    engine.slo = Slo(ttft_p95_ms=10_000)
    engine.step()
    assert (engine.decision.budget, engine.decision.reason) == (128, Reason.ALL)


def test_an_engine_that_begins_anew_ends_the_trial() -> None:
    knee = Knee(128)
    for second in range(int(FIRST_REST_SECONDS) + 3):
        knee.step(float(second), 128, second * 100)
    assert knee.is_trying
    knee.step(1_000.0, 128, 0)
    assert (knee.is_trying, knee.budget) == (False, 128)


def test_lines_that_never_follow_the_budget_end_the_trial_without_a_verdict() -> None:
    knee = Knee(128)
    for second in range(400):
        knee.step(float(second), 128, second * 100)
    assert knee.standing == 128
