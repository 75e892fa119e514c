"""The meter tells tokens a second of busy time, and forgets slowly."""

from __future__ import annotations

import pytest

from penstock_worker.budget.meter import Meter


class Worker:
    """A worker whose busy time goes on as it is told."""

    def __init__(self) -> None:
        self.meter = Meter(30.0)
        self.busy_seconds = 0.0

    def work(self, looks: int, tokens: int, seconds: float = 1.0) -> float:
        """So many looks, with busy time and tokens before each."""
        rate = 0.0
        for _ in range(looks):
            self.busy_seconds += seconds
            self.meter.recorded(tokens)
            rate = self.meter.tokens_per_second(self.busy_seconds)
        return rate


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_nothing_recorded_is_nothing(worker: Worker) -> None:
    assert worker.meter.tokens_per_second(0.0) == 0.0
    assert worker.work(5, 0) == 0.0


def test_steady_work_is_told_as_it_is(worker: Worker) -> None:
    assert worker.work(100, 70) == pytest.approx(70.0)


def test_idle_time_makes_no_worker_slow(worker: Worker) -> None:
    worker.work(60, 70)
    assert worker.work(100, 0, seconds=0.0) == pytest.approx(70.0)
    assert worker.work(1, 70) == pytest.approx(70.0)


def test_short_bursts_between_two_looks_are_told_by_their_own_time(worker: Worker) -> None:
    assert worker.work(60, 7, seconds=0.1) == pytest.approx(70.0)


def test_what_is_a_half_life_ago_weighs_half(worker: Worker) -> None:
    worker.work(600, 100)
    assert worker.work(30, 0) == pytest.approx(50.0, rel=0.02)


def test_tokens_that_are_recorded_after_the_last_line_left_count(worker: Worker) -> None:
    worker.work(10, 0)
    worker.meter.recorded(500)
    assert worker.meter.tokens_per_second(worker.busy_seconds) == pytest.approx(50.0, rel=0.2)
