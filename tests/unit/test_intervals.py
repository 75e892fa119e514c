"""Intervals: as others compute them, the same every time, and right as often as they say."""

from __future__ import annotations

from collections import Counter
from statistics import NormalDist

import numpy as np
import pytest

from penstock.domain.evals.comparison import ComparisonVerdict
from penstock.scoring.bootstrap import Interval, bootstrap, of_mean
from penstock.scoring.paired import LEAST_DIFFERING, Pairs, verdict

SHOWN = (ComparisonVerdict.BETTER, ComparisonVerdict.WORSE)


def test_the_same_scores_give_the_same_interval() -> None:
    counts = {-1_000: 12, 0: 270, 1_000: 18}
    assert bootstrap(counts) == bootstrap(dict(reversed(counts.items())))
    assert bootstrap(counts, seed=1) != bootstrap(counts, seed=2)


def test_it_is_the_bootstrap_that_resamples_line_by_line() -> None:
    scores = np.random.default_rng(5).integers(-1_000, 1_001, 200)
    ours = bootstrap(Counter(scores.tolist()))
    means = np.random.default_rng(6).choice(scores, (10_000, len(scores))).mean(axis=1) / 1_000
    assert ours.mean == pytest.approx(scores.mean() / 1_000)
    assert [ours.low, ours.high] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.006)


def test_a_skewed_mean_has_an_interval_that_reaches_further_to_its_long_side() -> None:
    found = bootstrap({0: 290, 1_000: 10})
    assert found.high - found.mean > found.mean - found.low > 0


def test_scores_that_are_all_alike_have_no_spread_but_yes_and_no_have_an_interval_all_the_same() -> None:
    assert bootstrap({250: 40}) == Interval(0.25, 0.25, 0.25)
    found = of_mean({1_000: 20})
    assert (found.mean, found.high) == (1.0, 1.0)
    z = NormalDist().inv_cdf(0.975)
    assert found.low == pytest.approx(20 / (20 + z * z), abs=1e-9), "Wilson's, of 20 of 20"
    with pytest.raises(ValueError, match="nothing"):
        bootstrap({})


def test_a_million_scores_cost_no_more_than_their_different_values() -> None:
    found = bootstrap(dict.fromkeys(range(1_001), 1_000), resamples=200)
    assert found.mean == pytest.approx(0.5)
    assert found.high - found.low < 0.002


def accused(rng: np.random.Generator, pairs: int, lines: int, right: float, alike: float, drop: float = 0.0) -> int:
    """Of so many pairs of runs, how many are told apart. Lines are hard or easy for both models: `alike` of them are
    answered the same way for that reason. `drop`: the share of lines that the second one loses."""
    found = 0
    for _ in range(pairs):
        first = rng.random(lines) < right
        second = np.where(rng.random(lines) < alike, first, rng.random(lines) < right)
        second &= rng.random(lines) >= drop / right
        both = Pairs(Counter(((second.astype(int) - first) * 1_000).tolist()))
        found += both.as_json("x")["verdict"] in SHOWN
    return found


@pytest.mark.parametrize(("right", "alike"), [(0.5, 0.0), (0.7, 0.8), (0.95, 0.5), (0.98, 0.8)])
def test_of_runs_of_equal_quality_no_more_are_accused_than_the_binomial_bound(right: float, alike: float) -> None:
    """Of 200 at 95 %, more than 19 are one in a hundred cases; seeds are fixed, so it is no matter of luck."""
    assert accused(np.random.default_rng(18), 200, 300, right, alike) <= 19


def test_a_regression_of_five_points_over_three_hundred_lines_is_found_where_answers_are_correlated() -> None:
    """Nine of ten lines are as hard for both: then 5 points are found in nearly all cases."""
    assert accused(np.random.default_rng(18), 100, 300, 0.9, 0.9, drop=0.05) >= 95


def test_without_correlation_five_points_over_three_hundred_lines_are_too_few_and_that_is_said_here() -> None:
    found = accused(np.random.default_rng(18), 100, 300, 0.7, 0.0, drop=0.05)
    assert 5 < found < 60


def test_of_few_lines_that_differ_nothing_follows() -> None:
    few = Pairs(Counter({0: 295, -1_000: LEAST_DIFFERING - 1})).as_json("x")
    assert few["high"] < 0, "the interval alone would say so"
    assert few["verdict"] == ComparisonVerdict.NOT_SHOWN
    assert Pairs(Counter({0: 294, -1_000: LEAST_DIFFERING})).as_json("x")["verdict"] == ComparisonVerdict.WORSE
    assert verdict(0.01, 0.03, 50) is ComparisonVerdict.BETTER
    assert verdict(-0.01, 0.03, 50) is ComparisonVerdict.NOT_SHOWN
    assert Pairs().as_json("x")["difference"] is None
