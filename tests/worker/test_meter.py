"""The meter tells tokens a second of busy time, and forgets slowly."""

from __future__ import annotations

import pytest

from penstock_worker.meter import Meter


class Clock:
    """A clock that stands until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def meter(clock: Clock) -> Meter:
    return Meter(30.0, clock)


def work(meter: Meter, clock: Clock, seconds: int, tokens: int) -> float:
    """Busy seconds with so many tokens in each."""
    rate = 0.0
    for _ in range(seconds):
        clock.now += 1.0
        meter.recorded(tokens)
        rate = meter.tokens_per_second(lines=5)
    return rate


def test_nothing_recorded_is_nothing(meter: Meter, clock: Clock) -> None:
    assert meter.tokens_per_second(0) == 0.0
    clock.now = 5.0
    assert meter.tokens_per_second(3) == 0.0


def test_steady_work_is_told_as_it_is(meter: Meter, clock: Clock) -> None:
    assert work(meter, clock, 100, 70) == pytest.approx(70.0)


def test_idle_time_makes_no_worker_slow(meter: Meter, clock: Clock) -> None:
    work(meter, clock, 60, 70)
    clock.now += 3_600
    assert meter.tokens_per_second(0) == pytest.approx(70.0)
    assert work(meter, clock, 1, 70) == pytest.approx(70.0)


def test_what_is_a_half_life_ago_weighs_half(meter: Meter, clock: Clock) -> None:
    work(meter, clock, 600, 100)
    assert work(meter, clock, 30, 0) == pytest.approx(50.0, rel=0.02)


def test_tokens_that_are_recorded_after_the_last_line_left_count(meter: Meter, clock: Clock) -> None:
    work(meter, clock, 10, 0)
    meter.recorded(500)
    assert meter.tokens_per_second(0) == pytest.approx(50.0, rel=0.2)
