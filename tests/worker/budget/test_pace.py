"""Recorded lines are charged with their part of the time in which lines were in the engine."""

from __future__ import annotations

import pytest

from penstock_worker.budget.pace import Pace


def test_a_segment_is_charged_its_part_of_all_tokens() -> None:
    pace = Pace(gpus=4)
    pace.seen(0.0, 1_000)
    pace.seen(10.0, 6_000)  # 5,000 tokens, those of waiting calls among them
    assert pace.gpu_microseconds(1_250, 10.0) == 10_000_000


def test_time_without_lines_in_the_engine_costs_nothing() -> None:
    pace = Pace()
    pace.seen(0.0, 0)
    pace.seen(1.0, 100)
    for _ in range(60):
        pace.seen(1.0, 100)
    pace.seen(1.0, 5_000)  # waiting calls alone
    assert pace.gpu_microseconds(100, 1.0) == 1_000_000


def test_a_new_engine_begins_at_nought_and_old_times_are_forgotten() -> None:
    pace = Pace(half_life_seconds=1.0)
    pace.seen(0.0, 0)
    pace.seen(10.0, 10_000)
    pace.seen(30.0, 200)
    assert pace.gpu_microseconds(10, 30.0) == pytest.approx(1_000_000, rel=0.01)


def test_before_anything_is_measured_segments_share_the_busy_time_out() -> None:
    pace = Pace()
    assert [pace.gpu_microseconds(5, 0.5), pace.gpu_microseconds(9, 0.75), pace.gpu_microseconds(0, 2.0)] == [
        500_000,
        250_000,
        0,
    ]
