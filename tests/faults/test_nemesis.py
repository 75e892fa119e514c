"""A run of the nemesis is drawn from its seed alone, and passes only if it struck often and everything held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import islice

import pytest
from faults.history import Verdict
from faults.nemesis import KINDS, OF_FOLDS, PAUSES, drawn
from faults.pool_nemesis import POOL_KINDS
from faults.run import SECONDS_A_FAULT, Run
from faults.scene import POOL


def test_one_seed_draws_the_same_faults_again_and_another_draws_others() -> None:
    assert list(islice(drawn(7), 500)) == list(islice(drawn(7), 500))
    assert list(islice(drawn(7), 500)) != list(islice(drawn(8), 500))


@pytest.mark.parametrize(
    ("table", "by_weight"),
    [
        (KINDS, ("kill gpu", "kill api", "kill all gpus")),
        (POOL_KINDS, ("kill member", "kill api", "kill all hosts")),
    ],
    ids=["plain", "pool"],
)
def test_each_kind_comes_once_before_any_comes_twice_and_then_by_its_weight(
    table: Mapping[str, int], by_weight: tuple[str, str, str]
) -> None:
    kinds = [fault.kind for fault in islice(drawn(3, table), 5_000)]
    assert set(kinds[: len(table)]) == set(table)
    times = Counter(kinds[len(table) :])
    often, less, seldom = by_weight
    assert times[often] > times[less] > times[seldom] > 0


def test_a_house_with_a_pool_has_no_gpu_workers_to_strike_and_all_other_kinds() -> None:
    assert {kind for kind in KINDS if kind not in POOL_KINDS} == {kind for kind in KINDS if "gpu" in kind}


def test_ensembles_of_a_pool_ask_several_of_its_versions_and_its_folds_are_struck_too() -> None:
    scene = POOL.with_panels
    assert [panel.kind for panel in scene.panels] == ["vote", "fallback", "cascade", "best_of", "combine"]
    for panel in scene.panels:
        assert {seat.model for seat in panel.seats} == {"a", "b", "c"}
    assert scene.kinds.keys() == POOL_KINDS.keys() | OF_FOLDS.keys()


def test_the_pauses_leave_time_for_a_hundred_faults_in_ten_minutes() -> None:
    assert sum(PAUSES) / 2 < SECONDS_A_FAULT
    assert 600 / SECONDS_A_FAULT >= 100


@pytest.mark.parametrize(
    ("faults", "verdict", "passed"),
    [
        (10, Verdict(), True),
        (9, Verdict(), False),
        (10, Verdict(lost=1), False),
        (10, Verdict(doubled=1), False),
        (10, Verdict(breaches=["it moved after its end"]), False),
    ],
)
def test_a_run_passes_only_if_it_struck_often_and_nothing_is_broken(
    faults: int, verdict: Verdict, passed: bool
) -> None:
    run = Run(1, 60, {"kill gpu": faults}, verdict, 0, {}, [], [])
    assert run.passed is passed
    assert run.line().startswith(f"faults: {'PASS' if passed else 'FAIL'} seed=1 seconds=60 faults={faults} ")
