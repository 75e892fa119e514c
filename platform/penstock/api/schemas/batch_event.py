"""Batch events: a batch as it is at one moment, for who watches it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, Field

from penstock.api.schemas import outlook_shapes, saved_shapes, shapes
from penstock.api.schemas.outlook_shapes import ExpectedShape, WaitingShape
from penstock.api.schemas.saved_shapes import SavedShape
from penstock.api.schemas.shapes import CostShape, RequestCounts, UsageShape
from penstock.service.views.batch_watch import BatchNews


class BatchEventShape(BaseModel):
    """One event's data: all of it each time, so that a missed one is no loss."""

    id: str
    object: Literal["batch.event", "job.event"]
    status: str
    paused: bool
    request_counts: RequestCounts
    output_tokens: int
    usage: UsageShape
    cost: CostShape | None = Field(description="Of the lines that are recorded so far; null without any price.")
    saved: SavedShape | None = Field(description="What caches and equal lines spared; null until it is planned.")
    lines_per_second: float | None = Field(description="Of the last half minute; null until it was seen twice.")
    tokens_per_second: float | None = Field(description="Of answers, likewise.")
    waiting: WaitingShape | None
    expected: ExpectedShape | None
    ended: bool = Field(description="This was the last event.")


class OpenBatchesShape(BaseModel):
    """One event's data: the newest that have not ended, all of them each time."""

    object: Literal["batches.event", "jobs.event"]
    data: list[BatchEventShape]


def event(news: BatchNews) -> BatchEventShape:
    """As it is told."""
    view, speed = news.view, news.speed
    one = view.batch
    return BatchEventShape(
        id=one.id,
        object="job.event" if one.kind == "job" else "batch.event",
        status=shapes.status(one),
        paused=shapes.is_paused(one),
        request_counts=RequestCounts(total=one.total, completed=one.completed, failed=one.failed),
        output_tokens=one.usage.output_tokens,
        usage=shapes.usage(one.usage),
        cost=shapes.cost(one.cost, one.currency),
        saved=saved_shapes.saved(one),
        lines_per_second=None if speed is None else round(speed.lines, 2),
        tokens_per_second=None if speed is None else round(speed.tokens, 1),
        waiting=outlook_shapes.waiting(view.waiting) if view.waiting else None,
        expected=outlook_shapes.expected(view.expected) if view.expected else None,
        ended=one.ended,
    )


def open_batches(news: Iterable[BatchNews], kind: str) -> OpenBatchesShape:
    """As they are told."""
    return OpenBatchesShape(
        object="jobs.event" if kind == "job" else "batches.event", data=[event(one) for one in news]
    )
