"""Rate limits of an engine's own: for how long it wants to be left alone, by the headers of its answers.

`retry-after` in seconds or as a date (RFC 9110, 10.2.3), `retry-after-ms` and `x-ratelimit-remaining-*` with
`-reset-*` as OpenAI and Penstock write them (`120ms`, `6s`, `1m30s`), or plain seconds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Final

MOST_HOLD_SECONDS: Final = 600.0
"""Whoever says longer is asked after this all the same: it may have been told to be quick meanwhile."""
_RATES: Final = ("requests", "tokens")
_UNITS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|d|h|m|s)")


def retry_after_seconds(headers: Mapping[str, str], clock: Callable[[], float] = time.time) -> float | None:
    """What an answer's headers say of when to come again; None if nothing, or nothing that can be read."""
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1_000
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None or not text:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - clock())
    except (ValueError, OverflowError):
        return None


def hold_seconds(headers: Mapping[str, str], clock: Callable[[], float] = time.time) -> float | None:
    """For how long nothing more should be sent after this answer; None if its headers set no such time.

    A 200 may say so too: it was the last request, or token, of a rate's window.
    """
    said = retry_after_seconds(headers, clock)
    waits = [] if said is None else [said]
    for rate in _RATES:
        if headers.get(f"x-ratelimit-remaining-{rate}", "").strip() == "0":
            reset = duration_seconds(headers.get(f"x-ratelimit-reset-{rate}"))
            waits += [] if reset is None else [reset]
    return min(max(waits), MOST_HOLD_SECONDS) if waits else None


def duration_seconds(text: str | None) -> float | None:
    """`1m30s`, `120ms` or `1.5` (seconds) as seconds; None if it is none of these."""
    text = (text or "").strip()
    if (plain := _number(text)) is not None:
        return plain
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _number(text: str | None) -> float | None:
    """A number that is not negative."""
    try:
        found = float(text or "")
    except ValueError:
        return None
    return found if 0.0 <= found < float("inf") else None
