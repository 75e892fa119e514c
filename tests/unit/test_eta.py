"""Foresight's arithmetic: what goes before a batch, and how long that takes."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from penstock.domain.accounts.eta import FASTER, SLOWER, OpenWork, Rival, Span, expectation, span

ALONE = OpenWork(
    tokens=10_000, lines=100, above=0, sooner=0, beside=0, rivals=(), tokens_per_second=1_000, lines_at_once=10
)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def expected(**changes: object) -> float:
    return span(dataclasses.replace(ALONE, **changes), 0.0).expected  # type: ignore[arg-type]


def test_alone_it_takes_its_tokens_over_the_rate() -> None:
    assert expected() == 10
    assert span(ALONE, 0.0).earliest == pytest.approx(10 / FASTER)
    line_seconds = 10 * 100 / 1_000
    assert span(ALONE, 0.0).latest == pytest.approx(10 / SLOWER + line_seconds)


def test_answers_are_recorded_a_flush_later() -> None:
    assert span(ALONE, 2.0).expected == span(ALONE, 0.0).expected + 2
    assert span(ALONE, 2.0).earliest == span(ALONE, 0.0).earliest


def test_more_urgent_lanes_and_the_tenants_earlier_deadlines_go_first() -> None:
    assert expected(above=5_000) == 15
    assert expected(sooner=5_000, beside=50_000) == 15
    assert span(dataclasses.replace(ALONE, beside=50_000), 0.0).latest > 60 / SLOWER


def test_other_tenants_have_their_share_as_long_as_their_work_lasts() -> None:
    assert expected(rivals=[Rival(1_000_000, 1.0)]) == 20
    assert expected(rivals=[Rival(1_000_000, 0.5)]) == 15
    assert expected(rivals=[Rival(2_000, 1.0)]) == 12
    assert expected(rivals=[Rival(1_000_000, 1.0)] * 3) == 40
    assert expected(rivals=[Rival(1_000_000, 1.0)], sooner=10_000, beside=10_000) == 40


def test_what_is_expected_lies_between_the_earliest_and_the_latest() -> None:
    for rivals in ((), [Rival(7_000, 3.0), Rival(1e9, 0.01)]):
        for above, sooner, beside in ((0, 0, 0), (1e6, 5e3, 8e3), (0, 3e4, 3e4)):
            work = dataclasses.replace(ALONE, rivals=rivals, above=above, sooner=sooner, beside=beside)
            one = span(work, 1.0)
            assert one.earliest < one.expected < one.latest


def test_a_batch_of_several_models_waits_for_the_slowest() -> None:
    one = expectation([Span(10, 5, 40), Span(20, 3, 30)], NOW, NOW + timedelta(seconds=20))
    times = (one.expected_at, one.earliest_at, one.latest_at)
    assert times == tuple(NOW + timedelta(seconds=seconds) for seconds in (20, 5, 40))
    assert one.meets_deadline
    assert one.reason is None


def test_a_deadline_before_what_is_expected_is_not_met() -> None:
    assert not expectation([Span(10, 5, 40)], NOW, NOW + timedelta(seconds=9)).meets_deadline


def test_a_worker_that_was_very_slow_once_breaks_no_date() -> None:
    one = expectation([span(dataclasses.replace(ALONE, tokens_per_second=1e-30), 0.0)], NOW, NOW)
    assert one.latest_at == NOW + timedelta(days=3_650)
