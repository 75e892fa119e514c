"""The line budget finds the most batch lines that keep a promise, stays there, and says why it stands there."""

from __future__ import annotations

import itertools
import statistics

import pytest
from worker.plant import Plant

from penstock.domain.calls.ingress import Slo
from penstock_worker.admission.gate import least_lines
from penstock_worker.budget.line_budget import QUIET_SECONDS, LineBudget, Observation, Reason
from penstock_worker.budget.slo_test import SloTest, SloVerdict, p95

SLO = Slo(ttft_p95_ms=300)
STRIDE = 4  # of 128


def plant(**more: object) -> Plant:
    return Plant(LineBudget(128), **{"slo": SLO, **more})  # type: ignore[arg-type]


def moves(budgets: list[int]) -> int:
    return sum(a != b for a, b in itertools.pairwise(budgets))


def test_a_full_cache_is_no_harm_while_nobody_calls_and_seen_to_at_once_when_somebody_does() -> None:
    engine = plant(slo=Slo(), calls=0.0, kv_per_line=0.99 / 128)
    assert set(engine.run(40)) == {128}
    engine.calls = 2.0
    engine.run(10)
    assert engine.decision.budget < 120
    assert engine.decision.reason is Reason.KV
    engine.calls = 0.0
    engine.run(int(QUIET_SECONDS) + 30)
    assert engine.decision.reason is not Reason.KV


def test_what_the_cache_bears_is_found_while_somebody_calls_and_remembered_for_the_next_call() -> None:
    engine = plant(slo=Slo(), calls=2.0, kv_per_line=2 / 128)
    engine.run(40)
    learned = engine.decision.budget
    assert learned <= 0.6 * 128
    assert engine.decision.reason is Reason.KV
    engine.calls = 0.0
    engine.run(int(QUIET_SECONDS) + 30)
    assert (engine.decision.budget, engine.decision.reason) == (128, Reason.NO_CALLS)
    assert engine.line_budget.call_came().budget <= 1.1 * learned


def test_without_a_promise_batch_work_gets_everything_but_for_trials_of_the_knee() -> None:
    engine = plant(slo=Slo())
    assert set(engine.run(40)) == {128}
    assert engine.decision.reason is Reason.ALL
    assert {engine.step().reason for _ in range(960)} == {Reason.ALL, Reason.TRYING}
    assert statistics.median(engine.budgets) == 128


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ms", [200, 300, 400])
def test_it_is_near_the_best_budget_after_two_minutes_and_then_stays(ms: int, seed: int) -> None:
    engine = plant(slo=Slo(ttft_p95_ms=ms), seed=seed)
    engine.run(30)
    assert engine.budgets[-1] < 1.6 * engine.best, "a promise that is missed by far is seen at once"
    engine.run(120)
    assert 0.7 * engine.best <= engine.budgets[-1] <= 1.2 * engine.best
    engine.run(150)
    steady = engine.run(500)
    assert 0.8 * engine.best < statistics.mean(steady) < 1.1 * engine.best
    assert engine.over / engine.asked < 0.08
    assert moves(steady) <= 12
    middle = statistics.median(steady)
    assert sum(abs(budget - middle) <= 2 * STRIDE for budget in steady) > 0.8 * len(steady)
    assert engine.decision.reason in (Reason.SLO_TTFT, Reason.PROBING)


def test_over_many_runs_the_promise_is_kept_with_little_given_away() -> None:
    engines = [plant(slo=Slo(ttft_p95_ms=ms), seed=seed) for ms in (200, 300, 400) for seed in range(8)]
    for engine in engines:
        engine.run(300)
    shares = [statistics.mean(engine.run(500)) / engine.best for engine in engines]
    assert 0.92 < statistics.mean(shares) < 1.03
    assert sum(engine.over for engine in engines) / sum(engine.asked for engine in engines) < 0.05


def test_a_promise_that_all_lines_keep_is_kept_with_all_of_them() -> None:
    engine = plant(slo=Slo(ttft_p95_ms=1_000))
    assert set(engine.run(500)) == {128}
    assert engine.decision.reason is Reason.ALL


def test_a_promise_that_cannot_be_kept_leaves_the_least() -> None:
    engine = plant(slo=Slo(ttft_p95_ms=20))
    engine.run(200)
    assert set(engine.run(100)) == {least_lines(128)} == {8}
    assert engine.decision.reason is Reason.SLO_TTFT


@pytest.mark.parametrize("seed", range(3))
def test_where_a_promise_breaks_all_at_once_it_stays_a_stride_below_and_looks_again_seldom(seed: int) -> None:
    class Cliff(Plant):
        def _time(self) -> float:
            return (0.05 if self.lines <= 70 else 0.9) * self._chance.uniform(0.6, 1.05)

    engine = Cliff(LineBudget(128), slo=SLO, seed=seed)
    engine.run(200)
    steady = engine.run(600)
    assert 70 - STRIDE <= statistics.median(steady) <= 70
    assert max(steady) <= 70 + STRIDE
    assert moves(steady) <= 8
    assert engine.over / engine.asked < 0.05


@pytest.mark.parametrize("most", [4, 8, 16])
def test_a_small_engine_has_steps_of_one_line(most: int) -> None:
    engine = Plant(LineBudget(most), slo=SLO, per_line_ms=400 / most)
    engine.run(200)
    assert abs(statistics.mean(engine.run(400)) - engine.best) < 1.0
    assert engine.over / engine.asked < 0.06


def test_it_follows_a_load_that_changes() -> None:
    engine = plant()
    engine.run(300)
    engine.per_line_ms = 8.0  # answers have become longer: half as many lines keep the promise
    engine.run(60)
    assert engine.budgets[-1] < 1.35 * engine.best
    engine.run(240)
    assert 0.75 * engine.best < statistics.mean(engine.run(100)) < 1.15 * engine.best
    engine.per_line_ms = 2.0
    engine.run(500)
    assert statistics.mean(engine.run(100)) > 0.75 * engine.best


def test_after_a_while_without_calls_batch_gets_everything_and_the_first_call_brings_back_what_was_learned() -> None:
    engine = plant()
    engine.run(300)
    learned, calls = engine.budgets[-1], engine.calls
    engine.calls = 0.0
    engine.run(int(QUIET_SECONDS) + 1)
    assert (engine.decision.budget, engine.decision.reason) == (128, Reason.NO_CALLS)
    engine.run(1_000)
    now = engine.line_budget.call_came()
    assert now.budget == learned
    engine.calls = calls
    engine.run(20)
    assert abs(engine.budgets[-1] - learned) <= 2 * STRIDE, "what came while 128 drained is held against nobody"


def test_a_new_promise_is_learned_from_where_the_old_one_left() -> None:
    engine = plant()
    engine.run(300)
    engine.slo = Slo(ttft_p95_ms=450)
    engine.run(400)
    assert statistics.mean(engine.run(100)) > 0.85 * engine.best
    engine.slo = Slo()
    engine.step()
    assert (engine.decision.budget, engine.decision.reason) == (128, Reason.ALL)


def test_times_while_suspects_are_tried_are_held_against_nobody() -> None:
    engine = plant(slo=Slo(ttft_p95_ms=1_000))
    engine.run(50)
    engine.base_ms = 30_000
    for _ in range(60):
        assert engine.step(trying=True).budget == 128


def test_it_learns_nothing_about_a_budget_that_is_not_used() -> None:
    engine = plant(demand=20)
    engine.run(400)
    assert set(engine.run(50)) == {128}, "twenty lines keep the promise, and more were not there"
    engine.demand = 10_000
    engine.run(150)
    assert engine.budgets[-1] < 1.2 * engine.best


def test_slow_calls_beside_an_empty_engine_are_not_the_lines_fault() -> None:
    engine = plant(base_ms=5_000, demand=2)
    assert set(engine.run(100)) == {128}


def test_gaps_between_tokens_have_a_promise_of_their_own() -> None:
    line_budget = LineBudget(64)
    line_budget.promise(Slo(itl_p95_ms=50))
    lines = 64
    for at in range(400):
        gap = 0.001 * lines  # 50 lines keep the promise
        decision = line_budget.step(Observation(float(at), lines, 2, (9.9,), (gap,) * 40))
        lines = decision.budget
    assert 45 <= lines <= 52
    assert decision.reason is Reason.SLO_ITL


def test_a_single_slow_engine_step_is_no_reason() -> None:
    line_budget = LineBudget(64)
    line_budget.promise(Slo(itl_p95_ms=50))
    for at in range(200):
        gaps = (0.4,) * 8 + (0.02,) * 400 if at % 20 == 0 else (0.02,) * 400
        assert line_budget.step(Observation(float(at), 64, 2, (), gaps)).budget == 64


def test_a_full_cache_shrinks_the_budget_before_anything_is_thrown_out() -> None:
    engine = plant(slo=Slo(), kv_per_line=0.0)
    engine.run(10)
    for _ in range(40):  # answers grow, and with them what each line holds
        engine.kv_per_line += 0.0004
        engine.step()
    assert engine.decision.reason is Reason.KV
    assert engine.preemptions == 0
    assert 0.4 < engine.kv_per_line * engine.lines <= 0.9
    steady = engine.run(300)
    assert engine.preemptions == 0
    assert moves(steady) <= 40
    assert statistics.mean(steady[100:]) * engine.kv_per_line > 0.7, "it rises again to what the cache bears"
    engine.kv_per_line = 0.002
    engine.run(400)
    assert (engine.decision.budget, engine.decision.reason) == (128, Reason.ALL)


def test_what_is_thrown_out_shrinks_the_budget_until_it_ends() -> None:
    engine = plant(slo=Slo(), kv_per_line=0.02)
    engine.run(60)
    thrown_out = engine.preemptions
    engine.run(300)
    assert engine.preemptions == thrown_out
    assert 30 <= engine.decision.budget <= 45


def test_a_new_engine_counts_from_nought_and_that_is_no_pressure() -> None:
    engine = plant(slo=Slo())
    engine.preemptions = 1_000
    engine.run(1)
    before = engine.decision.budget
    engine.preemptions = 0
    engine.run(20)
    assert engine.decision.budget >= before


@pytest.mark.parametrize("most", [1, 2, 15, 16, 128, 1_024])
def test_no_budget_is_below_the_least_or_above_n(most: int) -> None:
    engine = Plant(LineBudget(most), slo=Slo(ttft_p95_ms=100), per_line_ms=100.0, kv_per_line=0.9)
    budgets = engine.run(200)
    engine.per_line_ms, engine.kv_per_line = 0.0, 0.0
    budgets += engine.run(200)
    assert all(least_lines(most) <= budget <= most for budget in budgets)


def test_evidence_speaks_only_when_chance_cannot_be_the_reason() -> None:
    evidence = SloTest(1.0)
    evidence.add([2.0] * 12)
    assert evidence.verdict is SloVerdict.OPEN, "a burst within one step is one witness"
    evidence.add([2.0])
    assert evidence.verdict is SloVerdict.BAD
    evidence.clear()
    for _ in range(26):
        evidence.add([0.5])
    assert evidence.verdict is SloVerdict.OPEN
    evidence.add([0.5])
    evidence.add([0.5])
    assert evidence.verdict is SloVerdict.GOOD
    evidence.clear()
    for step in range(200):
        evidence.add([2.0 if step % 12 == 5 else 0.5])
    assert evidence.verdict is SloVerdict.JUST_BAD


def test_a_percentile_is_a_value_that_was_met() -> None:
    assert p95([]) == 0.0
    assert p95([3.0]) == 3.0
    assert p95([float(n) for n in range(1, 101)]) == 95.0
