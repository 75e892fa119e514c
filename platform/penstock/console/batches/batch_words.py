"""Words about a batch or a job as the API has it: its state, what is left, when it will be done, what it cost."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any, Final

from markupsafe import Markup, escape

from penstock.console import words

Shape = dict[str, Any]
ENDED: Final = ("completed", "failed", "expired", "cancelled")
_RETRY_TOKEN_SECONDS: Final = 10
_ENDS: Final = tuple(f"{state}_at" for state in ENDED)
_UNKNOWN: Final = {
    "not_measured": "no worker has measured the speed of its model yet",
    "no_worker": "no live worker serves its model",
    "asleep": "its model is asleep, and its turn can't be foreseen",
    "paused": "it is paused",
}
_HAPPENED: Final = {
    "first_answer": "First answer",
    "retried": "Lines of it were asked again",
    "batch.paused": "Paused",
    "batch.resumed": "Resumed",
    "batch.updated": "Changed",
    "batch.cancelled": "Cancel was asked for",
}


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
    at = ended_at(batch)
    return float((time.time() if at is None else at) - batch["created_at"])


def ended_at(batch: Shape) -> int | None:
    """When it ended, in Unix seconds; None if it has not."""
    return next((batch[name] for name in _ENDS if batch[name] is not None), None)


def has_ended(batch: Shape) -> bool:
    """Whether nothing of it changes any more."""
    return batch["status"] in ENDED


def retry_token(batch: Shape) -> str:
    """What makes a retry once of a form that is sent twice: the same for all who see the page, for some seconds.

    By the retries that there are alone it would come again once one of them was deleted.
    """
    return f"{batch['id']}-{len(batch['children'] or ())}-{int(time.time()) // _RETRY_TOKEN_SECONDS}"


def why_unknown(batch: Shape) -> str | None:
    """Why nobody can say when it will be done; None if somebody can, or it is not asked."""
    reason = (batch["expected"] or {}).get("reason")
    return _UNKNOWN.get(str(reason)) if reason else None


def mean_rate(batch: Shape) -> float | None:
    """Lines a second from the first claim to the end, of one that has ended."""
    end, began = ended_at(batch), batch["in_progress_at"]
    if end is None or began is None:
        return None
    return float(batch["request_counts"]["completed"] / max(1, end - began))


def happened(entry: Shape) -> str:
    """An entry of its timeline as a few words: `validating → in progress`, `Webhook batch.completed: delivered`."""
    what, more = entry["event"], entry["details"]
    if what == "state":
        before, after = (str(more.get(name) or "").replace("_", " ") for name in ("from", "to"))
        return f"{before} → {after}" if before else after.capitalize()
    if what == "webhook":
        tries = more.get("attempts")
        return f"Webhook {more.get('type')}: {more.get('status')}" + (
            f", {tries} attempts" if tries not in (None, 1) else ""
        )
    told = ", ".join(f"{name} {value}" for name, value in more.items() if value is not None and what != "retried")
    words = _HAPPENED.get(what, str(what))
    return f"{words}: {told}" if told else words
