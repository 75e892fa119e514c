"""The figures of the benchmarks rest on this: sizes and arrivals are the trace's, seeded, and intervals are honest."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from bench import paired, trace
from bench.load import Writer
from bench.trace import Size

ROWS = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:48.0000000,879,55
"""


def test_the_same_seed_draws_the_same_sizes_and_another_seed_others() -> None:
    one = trace.synthetic()
    assert list(islice(one.sizes(1), 50)) == list(islice(trace.synthetic().sizes(1), 50))
    assert list(islice(one.sizes(1), 50)) != list(islice(one.sizes(2), 50))


def test_synthetic_sizes_have_the_means_of_the_trace_scaled() -> None:
    drawn = list(islice(trace.synthetic().sizes(1, scale=0.25), 5_000))
    assert np.mean([size.prompt for size in drawn]) == pytest.approx(1154.7 / 4, rel=0.1)
    assert np.mean([size.answer for size in drawn]) == pytest.approx(211.1 / 4, rel=0.1)


def test_poisson_arrivals_come_at_the_rate_in_order_within_the_window() -> None:
    times = trace.synthetic().arrivals(seed=3, rate=4.0, seconds=1_000.0)
    assert len(times) == pytest.approx(4_000, rel=0.1)
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] < 1_000


def test_a_file_is_read_in_the_order_of_time_and_its_arrivals_are_stretched_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(ROWS)
    found = trace.read(path)
    assert found.answers.tolist() == [44, 55, 109]
    assert found.seconds is not None
    assert found.seconds.tolist() == pytest.approx([0.0, 1.31941, 4.314579])
    whole = found.arrivals(seed=1, rate=3 / 4.314579 / 2, seconds=100.0)
    assert whole == pytest.approx([0.0, 2 * 1.31941, 2 * 4.314579])


def test_no_two_prompts_begin_alike_and_their_answers_have_the_length_that_was_asked_for() -> None:
    writer = Writer("tiny", tokens_per_word=2.0)
    one, other = (writer.chat(Size(40, 8), priority=3) for _ in range(2))
    first, second = (body["messages"][0]["content"].split(" ", 1) for body in (one, other))
    assert first[0] != second[0]
    assert len(first[1].split()) == 20
    assert (one["max_tokens"], one["ignore_eos"], one["priority"]) == (8, True, 3)


def test_a_median_lies_in_its_interval_which_is_wide_for_few_repeats() -> None:
    few, many = paired.median([1.0, 2.0, 9.0]), paired.median([1.0, 2.0, 9.0] * 100)
    assert few.low <= few.value == 2.0 <= few.high
    assert (few.low, few.high) == (1.0, 9.0)
    assert (many.low, many.high) == (2.0, 2.0)


def test_paired_ratios_see_an_effect_that_drift_hides_from_unpaired_ones() -> None:
    before = [float(n) for n in range(1, 41)]
    after = [value * 1.1 for value in before]
    found = paired.ratios(list(zip(before, after, strict=True)))
    assert (found.value, found.low, found.high) == pytest.approx((1.1, 1.1, 1.1))
    assert paired.ratio_of_medians(after, before).low < 1.0


def test_nothing_measured_is_no_number() -> None:
    assert np.isnan(paired.median([]).value)
    assert np.isnan(paired.percentile([], 95))
    assert np.isnan(paired.ratio_of_medians([], [1.0]).value)
