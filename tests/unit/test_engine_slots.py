"""The picture of an engine's slots: each slot is counted once, and what is closed says why."""

from __future__ import annotations

import itertools
import json

import pytest

from penstock.domain.engines import engine_report
from penstock.domain.engines.engine_report import EngineReport
from penstock.domain.engines.engine_slots import BUDGET_WORDS, parted
from penstock.domain.engines.latency_histogram import BUCKETS, added, bucket, percentile_ms
from penstock_worker.budget.line_budget import EngineLoad, Reason
from penstock_worker.budget.recent_counters import RecentCounters

REPORT = EngineReport(
    slots=36, most_lines=32, calls=2, lines={"priority": 1, "standard": 4, "flex": 0}, waiting={"calls": 0, "flex": 7}
)


def test_every_slot_is_counted_once_whatever_is_in_the_engine() -> None:
    for calls, lines, budget in itertools.product(range(12), range(12), (0, 1, 5, 8)):
        found = parted(total=11, most_lines=8, calls=calls, lines={"flex": lines}, budget=budget, why="kv")
        parts = (found.calls, *found.lines.values(), found.free, found.closed, found.reserved)
        assert min(parts) >= 0
        assert sum(parts) == found.total >= 11
        assert (found.closed_because is None) == (found.closed == 0)


def test_a_budget_closes_the_slots_beyond_it_and_its_reason_is_a_sentence() -> None:
    found = REPORT.parted(10, "kv")
    assert (found.free, found.closed, found.reserved) == (5, 20, 4)
    assert found.closed_because == "the engine's KV cache is nearly full"
    whole = REPORT.parted(32, "all")
    assert (whole.free, whole.closed, whole.closed_because) == (25, 0, None)


@pytest.mark.parametrize(("what", "words"), [("lines_held", "said that it has enough"), ("trying", "suspects")])
def test_a_gate_that_lets_no_line_in_closes_all_of_them(what: str, words: str) -> None:
    report = EngineReport(**vars(REPORT) | {what: True})
    found = report.parted(32, "all")
    assert (found.free, found.closed, found.reserved) == (0, 25, 4)
    assert found.closed_because is not None
    assert words in found.closed_because


def test_every_reason_of_the_budget_has_words() -> None:
    assert {str(reason) for reason in Reason} <= BUDGET_WORDS.keys()


def test_a_report_is_read_as_it_was_kept_and_one_of_other_code_is_none() -> None:
    full = EngineReport(**vars(REPORT) | {"ttft": (0,) * 49 + (3,), "kv_usage": 0.5})
    kept = json.loads(json.dumps(full.json()))
    assert engine_report.read(kept) == full
    assert engine_report.read(kept | {"newer": 1}) == full
    assert engine_report.read({"slots": 3}) is None
    assert engine_report.read(None) is None


def test_a_percentile_is_right_to_an_eighth_and_histograms_add_up() -> None:
    for seconds in (0.0012, 0.02, 0.35, 4.0, 90.0):
        one = [0] * BUCKETS
        one[bucket(seconds)] = 5
        found = percentile_ms(one, 0.95)
        assert found is not None
        assert found == pytest.approx(seconds * 1000, rel=0.125)
    fast, slow = [0] * BUCKETS, [0] * BUCKETS
    fast[bucket(0.1)], slow[bucket(2.0)] = 90, 10
    both = added([fast, slow, [1, 2]])
    assert sum(both) == 100
    assert percentile_ms(both, 0.5) == percentile_ms(fast, 0.5)
    assert percentile_ms(both, 0.95) == percentile_ms(slow, 0.5)
    assert percentile_ms(added([]), 0.5) is None
    assert bucket(0.0) == 0
    assert bucket(1e9) == BUCKETS - 1


def test_rates_are_of_the_last_minute_and_begin_anew_with_the_engine() -> None:
    recent = RecentCounters()
    assert recent.rates().input_tokens_per_second is None
    for at in range(0, 121, 10):
        recent.seen(
            at, EngineLoad(1, 0, 0.0, 0, tokens=30 * at, output_tokens=10 * at, prefix_queries=at, prefix_hits=at // 2)
        )
    rates = recent.rates()
    assert (rates.input_tokens_per_second, rates.output_tokens_per_second, rates.prefix_hit_rate) == (20.0, 10.0, 0.5)
    recent.seen(121, EngineLoad(1, 0, 0.0, 0, tokens=5))
    assert recent.rates().input_tokens_per_second is None
    recent.seen(122, EngineLoad(1, 0, 0.0, 0, tokens=25, output_tokens=8))
    assert (recent.rates().input_tokens_per_second, recent.rates().prefix_hit_rate) == (12.0, None)
