"""Words about a batch or a job as the API has it: its state, what is left, when it will be done, what it cost."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

from markupsafe import Markup, escape

from penstock.console import words

Shape = dict[str, Any]


def shown_status(batch: Shape) -> str:
    """Its state; paused and waiting stand apart from what is at work."""
    if batch["paused"]:
        return "paused"
    if batch["waiting"] and batch["status"] in ("in_progress", "validating", "finalizing"):
        return "waiting"
    return str(batch["status"])


def left(counts: dict[str, int]) -> int:
    """How many lines have no end yet."""
    return counts["total"] - counts["completed"] - counts["failed"]


def expected_short(batch: Shape) -> Markup:
    """When it is expected to be done, and whether that is too late; a dash where nobody can say."""
    expected = batch["expected"]
    if not expected or expected["completion_at"] is None:
        return Markup("–")
    late = "" if expected["meets_deadline"] else " (late)"
    return Markup("{}{}").format(escape(words.clock(expected["completion_at"])), late)


def verdict(batch: Shape) -> Markup | None:
    """`14:20 UTC, between 13:50 UTC and 15:05 UTC; 2 h 5 min before its deadline`; None if nobody can say."""
    expected = batch["expected"]
    if not expected or expected["completion_at"] is None:
        return None
    spare = batch["expires_at"] - expected["completion_at"]
    against = (
        f"{words.duration(spare)} before its deadline" if spare >= 0 else f"{words.duration(-spare)} after its deadline"
    )
    return Markup("{}, between {} and {}; {}").format(
        *(words.clock(expected[name]) for name in ("completion_at", "earliest_at", "latest_at")), against
    )


def total_cost(cost: dict[str, Any] | None) -> str:
    """By tokens and by GPU together; a dash without any price."""
    if cost is None:
        return "–"
    return words.money(str(Decimal(cost["tokens"]) + Decimal(cost["gpu"])), cost["currency"])


def elapsed(batch: Shape) -> float:
    """Seconds since it was made, until it ended."""
    ended = (batch[name] for name in ("completed_at", "failed_at", "expired_at", "cancelled_at"))
    return float(next((at for at in ended if at is not None), time.time()) - batch["created_at"])
