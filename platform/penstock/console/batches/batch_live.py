"""A batch or job as its page shows it: what the API has of it, and what an event of its stream changes."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from penstock.console.batches.batch_words import Shape
from penstock.console.batches.nouns import Noun
from penstock.console.session import Visitor

_OF_AN_EVENT: Final = ("status", "paused", "request_counts", "usage", "cost", "saved", "waiting", "expected")
_MOST_GROUPS: Final = 8
_QUIET: Final = {"lines_per_second": None, "tokens_per_second": None}


async def found(visitor: Visitor, noun: Noun, id: str) -> dict[str, Any]:
    """All that the page shows; raises ApiProblem."""
    path = f"/v1{noun.path}/{id}"
    batch = await visitor.api.get(path)
    groups, timeline, members = await asyncio.gather(
        *(visitor.api.get(f"{path}/{what}") for what in ("errors", "timeline", "members"))
    )
    return {
        "noun": noun,
        "batch": batch,
        "groups": groups["data"][:_MOST_GROUPS],
        "timeline": timeline["data"],
        "members": members["data"],
        "speed": _QUIET,
    }


def changed(values: dict[str, Any], event: Shape) -> dict[str, Any]:
    """The same, as an event says that it is now."""
    return values | {"batch": values["batch"] | {name: event[name] for name in _OF_AN_EVENT}, "speed": event}


def mark(event: Shape, *, has_members: bool = False) -> tuple[Any, ...]:
    """What changes where more is to be asked: files, groups of errors, the timeline, how far members are.

    Of many failed lines not each one asks for the groups anew, and of members' tokens each tenth or so.
    """
    tokens = f"{event['usage']['total_tokens']:.1e}" if has_members else ""
    return event["status"], event["paused"], f"{event['request_counts']['failed']:.1e}", tokens
