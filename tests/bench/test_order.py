"""The order benchmark rests on this: jobs are the trace's, plain orders are what they say, and the clock is virtual."""

from __future__ import annotations

import pytest
from bench import order_jobs, trace, virtual
from bench.order_jobs import Job

from penstock.domain.work.lane import LANES, Lane
from penstock.settings import Settings


def job(number: int, at: float, window: float, *slices: int, lane: Lane = Lane.STANDARD, tenant: str = "acme") -> Job:
    return Job(number, at, tenant, lane, window, slices)


def test_every_row_of_the_trace_is_in_one_job_and_the_same_seed_gathers_the_same() -> None:
    rows = trace.synthetic()
    jobs = order_jobs.gathered(rows, seed=1)
    assert jobs == order_jobs.gathered(rows, seed=1) != order_jobs.gathered(rows, seed=2)
    assert [one.at for one in jobs] == sorted(one.at for one in jobs)
    assert {one.lane for one in jobs} == set(LANES)
    assert all(tokens <= order_jobs.SLICE_TOKENS for one in jobs for tokens in one.slices)


def test_first_come_serves_slices_in_the_order_of_arrival_on_whoever_is_free() -> None:
    jobs = [job(0, 0.0, 1, 100, 300), job(1, 1.0, 1, 50)]
    assert order_jobs.first_come(jobs, workers=2, rate=10) == {0: 30.0, 1: 15.0}


def test_the_ideal_switches_to_an_earlier_deadline_and_comes_back() -> None:
    jobs = [job(0, 0.0, 100, 200), job(1, 5.0, 11, 100)]
    assert order_jobs.ideal(jobs, rate=10) == {1: 15.0, 0: 30.0}


@pytest.mark.timeout(120)
def test_a_virtual_hour_takes_the_time_that_its_workers_rates_say(postgres_url: str) -> None:
    jobs = [
        job(0, 0.0, 10_000, 6_000, 6_000, lane=Lane.FLEX),
        job(1, 30.0, 1_000, 1_000),
        job(2, 30.0, 1_000, 1_000, lane=Lane.PRIORITY, tenant="globex"),
    ]
    with virtual.Hour(postgres_url, Settings(), workers=1, rate=100.0) as hour:
        outcome = hour.run(jobs)
    # The slice that runs is not stopped; then lane by lane.
    assert outcome.ended == pytest.approx({2: 70.0, 1: 80.0, 0: 140.0})
    assert (outcome.claims, outcome.promoted) == (4, 0)


@pytest.mark.timeout(120)
def test_in_a_virtual_hour_what_runs_out_of_time_rises(postgres_url: str) -> None:
    jobs = [job(0, 0.0, 300, 2_000, lane=Lane.FLEX)]
    jobs += [job(number, 0.0, 10_000, 2_000) for number in range(1, 30)]
    with virtual.Hour(postgres_url, Settings(), workers=1, rate=100.0) as hour:
        outcome = hour.run(jobs)
    assert outcome.promoted == 1
    assert outcome.ended[0] <= 300
