"""Totals of batches or jobs on the wire."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from penstock.domain.work.batch import BatchState
from penstock.service.views.batch_list import MOST_COUNTED, BatchTotals


class TotalShape(BaseModel):
    """How many are in a state and a lane."""

    status: Literal[
        "validating", "in_progress", "paused", "cancelling", "finalizing", "completed", "cancelled", "expired", "failed"
    ] = Field(description="As in a batch, but that paused ones stand apart: they are not in `in_progress` here.")
    lane: Literal["priority", "standard", "flex"]
    count: int
    more: bool = Field(description=f"Of an ended status: there are more than {MOST_COUNTED:,}; its newest are counted.")


class TotalsShape(BaseModel):
    """Open ones are all counted; ended ones are those created since `ended_since`, the newest of each status."""

    object: Literal["batch.totals", "job.totals"]
    data: list[TotalShape] = Field(description="Those that are not 0, in the order in which a batch passes them.")
    ended_since: int = Field(description="Unix seconds.")


def totals(found: BatchTotals, kind: str) -> TotalsShape:
    """As they are told."""
    order = list(BatchState)
    rows = sorted(found.totals, key=lambda one: (order.index(one.state), one.lane.rank))
    return TotalsShape(
        object="job.totals" if kind == "job" else "batch.totals",
        data=[
            TotalShape(status=one.state.value, lane=one.lane.value, count=one.count, more=one.capped) for one in rows
        ],
        ended_since=int(found.ended_since.timestamp()),
    )
