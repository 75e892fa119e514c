"""What ended is counted once in each bucket that holds it, and its cost in parts that small jobs don't lose."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from penstock.domain.work.batch_ends import EndedBatch, counted

BATCH = EndedBatch("batch", "flex", "completed", False, 60.0, 0.5, 61.5, None, Decimal(2_000_000))


def test_ends_are_added_up_by_how_lane_and_bucket() -> None:
    late = replace(BATCH, late=True, seconds=10_000_000.0)
    assert counted([BATCH, late]) == {
        "batches_ended/batch/flex/completed": 2,
        "batches_late/flex": 1,
        "cost/flex": 4_000,
        "batch_seconds/flex/60.0": 1,
        "batch_seconds/flex/+Inf": 1,
        "batch_seconds/flex/sum": 10_000_060_000,
        "batch_validating_seconds/flex/1.0": 2,
        "batch_validating_seconds/flex/sum": 1_000,
        "batch_first_answer_seconds/flex/300.0": 2,
        "batch_first_answer_seconds/flex/sum": 123_000,
    }


def test_the_error_of_an_expectation_is_what_it_took_over_what_was_expected() -> None:
    slow = replace(BATCH, expected_seconds=100.0, taken_seconds=210.0)
    assert slow.eta_error_ratio == 2.1
    found = counted([slow, replace(slow, taken_seconds=100.0), replace(slow, expected_seconds=9.0), BATCH])
    assert {name: times for name, times in found.items() if name.startswith("eta_error_ratio")} == {
        "eta_error_ratio/flex/4.0": 1,
        "eta_error_ratio/flex/1.0": 1,
        "eta_error_ratio/flex/sum": 3_100,
    }
