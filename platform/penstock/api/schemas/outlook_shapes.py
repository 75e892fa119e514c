"""Outlook shapes: why a batch waits and when it is expected, on the wire."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from penstock.domain.accounts.eta import Expectation, ExpectedPart
from penstock.domain.work.waiting import WhyWaiting


class WaitingShape(BaseModel):
    """Why nothing happens at the moment."""

    reason: Literal["no_worker", "asleep", "no_io_worker", "paused", "budget", "lane", "tenants", "earlier"] = Field(
        description="`no_worker`: no live worker serves `models`. `asleep`: they share machines with others in a pool, "
        "and their turn comes. `no_io_worker`: nobody validates or assembles. `paused`: until you resume it. `budget`: "
        "paused, since this month's is spent. None of its lines runs yet, and before them are: `lane`: a more urgent "
        "lane, `tenants`: other tenants' fair share, `earlier`: your own earlier deadlines."
    )
    models: list[str]
    message: str = Field(description="One sentence for people.")
    lane: Literal["priority", "standard", "flex"] | None = Field(description="Of `lane`: which has most before it.")
    tokens: int | None = Field(description="What stands before it, of `lane`, `tenants` and `earlier`; an estimate.")
    seconds: float | None = Field(description="How long that takes at the speed of now; null if it is not known.")


class ExpectedPartShape(BaseModel):
    """What stands between now and the end, for one model: tokens, by estimate."""

    model: str
    tokens: int = Field(description="Left of the batch itself.")
    above_tokens: int = Field(description="Before it, in more urgent lanes.")
    sooner_tokens: int = Field(description="Before it, of your own in its lane: they run, or are due earlier.")
    rival_tokens: int = Field(description="What other tenants have of its lane meanwhile, by their weights.")
    tokens_per_second: float = Field(description="The rate that is taken for all of it.")
    wake_seconds: float = Field(description="Until its version is awake, where several take turns in a pool; else 0.")


class ExpectedShape(BaseModel):
    """When the last answer is expected, from the tokens that are left and the tokens that go before them."""

    completion_at: int | None = Field(description="Unix seconds; null with a `reason`.")
    earliest_at: int | None = Field(description="If nothing went before it.")
    latest_at: int | None = Field(description="If all that waits in its lane and above goes before it.")
    meets_deadline: bool | None = Field(description="Whether `completion_at` is before `expires_at`.")
    reason: Literal["not_measured", "no_worker", "asleep", "paused"] | None = Field(
        description="Why it is not known: no worker of its model has measured its speed yet (nor has `penstock tune` "
        "on such a device), none is live, its version is asleep and its turn can't be foreseen, or paused."
    )
    parts: list[ExpectedPartShape] = Field(
        description="What `completion_at` is made of, by model, the slowest first; empty with a `reason`."
    )


def waiting(why: WhyWaiting) -> WaitingShape:
    """Why it waits, as it is told."""
    return WaitingShape(
        reason=why.reason,
        models=list(why.models),
        message=why.sentence,
        lane=None if why.lane is None else why.lane.value,
        tokens=why.tokens,
        seconds=None if why.seconds is None else round(why.seconds, 1),
    )


def expected(one: Expectation) -> ExpectedShape:
    """When it is expected, as it is told."""
    return ExpectedShape(
        completion_at=_unix(one.expected_at),
        earliest_at=_unix(one.earliest_at),
        latest_at=None if one.latest_at is None else math.ceil(one.latest_at.timestamp()),
        meets_deadline=one.meets_deadline,
        reason=one.reason,
        parts=[_part(part) for part in one.parts],
    )


def _part(one: ExpectedPart) -> ExpectedPartShape:
    return ExpectedPartShape(
        model=one.model,
        tokens=round(one.tokens),
        above_tokens=round(one.above),
        sooner_tokens=round(one.sooner),
        rival_tokens=round(one.rivals),
        tokens_per_second=round(one.tokens_per_second, 1),
        wake_seconds=round(one.wake_seconds, 1),
    )


def _unix(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
