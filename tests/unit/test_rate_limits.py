"""An engine's own rate limits are read off its answers, in every way that engines write them."""

from __future__ import annotations

import pytest

from penstock_worker.engine.rate_limits import MOST_HOLD_SECONDS, duration_seconds, hold_seconds

NOW = 1_792_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360.0), ("1m30s", 90.0), ("7.66s", 7.66), ("120ms", 0.12), ("1h2m", 3_720.0), ("2", 2.0),
        ("soon", None), ("", None), ("-1", None), ("1s later", None), (None, None), ("inf", None),
    ],
)  # fmt: skip
def test_a_time_is_read_as_engines_write_it(text: str | None, seconds: float | None) -> None:
    assert duration_seconds(text) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Wed, 14 Oct 2026 17:47:00 GMT"}, 20.0),
        ({"retry-after": "Mon, 01 Jan 2024 00:00:00 GMT"}, 0.0),
        ({"retry-after": "whenever"}, None),
        ({"retry-after": "86400"}, MOST_HOLD_SECONDS),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6s"}, 6.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m"}, 60.0),
        ({"x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-requests": "6s"}, None),
        ({"retry-after": "1", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "2s"}, 2.0),
        ({}, None),
    ],
)
def test_an_answer_says_for_how_long_nothing_more_should_come(headers: dict[str, str], seconds: float | None) -> None:
    assert hold_seconds(headers, clock=lambda: NOW) == seconds
