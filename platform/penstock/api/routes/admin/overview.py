"""The platform now and lately, for operators: overview, lanes, samples, recovery."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from penstock.api.auth import Operator
from penstock.api.http.body import Asked
from penstock.api.platform import Here
from penstock.api.schemas import overview_shapes
from penstock.api.schemas.overview_shapes import LaneShape, OverviewShape, RecoveryShape, SamplesShape
from penstock.service.admin import overview, recovery, samples

router = APIRouter()

BODIES: Final[tuple[type[Asked], ...]] = ()
_LATEST: Final = 4_102_444_800
"""The year 2100."""
_LONGEST_STEP: Final = 604_800

Series = Literal[
    "backlog_tokens",
    "backlog_lines",
    "lines_per_second",
    "input_tokens_per_second",
    "output_tokens_per_second",
    "calls",
    "ttft_p50_ms",
    "ttft_p95_ms",
    "workers",
    "slots",
    "slots_used",
]
Group = Literal["model", "lane"]


class LaneList(BaseModel):
    """All lanes, the most urgent first."""

    object: Literal["list"] = "list"
    data: list[LaneShape]
    first_id: Literal["priority"] = "priority"
    last_id: Literal["flex"] = "flex"
    has_more: Literal[False] = False


@router.get("/overview", summary="Look at the whole platform")
async def get_overview(operator: Operator, here: Here) -> OverviewShape:
    """Backlog in tokens and hours, promises kept, who works and what is missing, by model, over all tenants.

    A fixed number of statements over what is open and who is live, none over history.
    """
    good = await here.blob_readiness.good()
    return overview_shapes.overview(await here.db.autocommit(overview.look, here.settings, good))


@router.get("/lanes", summary="Look at the lanes")
async def list_lanes(
    operator: Operator,
    here: Here,
    running: Annotated[int, Query(description="So many running batches of each.", ge=0, le=100)] = 20,
) -> LaneList:
    """What is open in each lane and for how long, its share of the engines' slots, and what runs."""
    found = await here.db.autocommit(overview.lanes, here.settings, running)
    return LaneList(data=[overview_shapes.lane(one) for one in found])


@router.get("/samples", summary="Read charts of the last week")
async def get_samples(
    operator: Operator,
    here: Here,
    series: Annotated[list[Series], Query(description="What is charted; may be repeated.", min_length=1, max_length=6)],
    since: Annotated[int | None, Query(description="Unix seconds; an hour before `until`.", ge=0, le=_LATEST)] = None,
    until: Annotated[int | None, Query(description="Unix seconds; now.", ge=0, le=_LATEST)] = None,
    step: Annotated[
        int | None,
        Query(description="Seconds between two points, a multiple of 10; as fits.", ge=10, le=_LONGEST_STEP),
    ] = None,
    model: Annotated[str | None, Query(description="Of this model only.", min_length=1, max_length=200)] = None,
    lane: Annotated[Literal["priority", "standard", "flex"] | None, Query(description="Of this lane only.")] = None,
    group_by: Annotated[list[Group] | None, Query(description="Models, or lanes, apart; may be repeated.")] = None,
) -> SamplesShape:
    """What keepers sampled: every 10 s for a day, every minute for a week; at most 1,500 points in all.

    `calls`, `workers`, `slots`, `slots_used` and times to first token are of models, not of lanes. Tokens and lines a
    second are those of batches and jobs. Longer ago than a day, and for more than an hour by whole minutes, minutes are
    read.
    """
    found = await here.db.autocommit(
        samples.chart,
        list(dict.fromkeys(series)),
        since=None if since is None else datetime.fromtimestamp(since, UTC),
        until=None if until is None else datetime.fromtimestamp(until, UTC),
        step_seconds=step,
        model=model,
        lane=lane,
        by_model="model" in (group_by or ()),
        by_lane="lane" in (group_by or ()),
    )
    return overview_shapes.samples(found)


@router.get("/recovery", summary="Look at what went wrong lately")
async def get_recovery(
    operator: Operator,
    here: Here,
    limit: Annotated[int, Query(description="The newest so many of each kind.", ge=1, le=100)] = 20,
) -> RecoveryShape:
    """Leases reaped, answers refused, engines that died, lines and calls suspected of that, webhooks given up."""
    return overview_shapes.recovery(await here.db.autocommit(recovery.look, limit))
