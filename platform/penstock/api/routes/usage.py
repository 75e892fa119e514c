"""`/v1/usage`: what a tenant's work took and cost, in the shape of OpenAI's organization usage."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from penstock.api.auth import Tenant
from penstock.api.http.errors import DOCUMENTED
from penstock.api.platform import Here, Platform
from penstock.api.schemas import shapes
from penstock.api.schemas.shapes import CostShape
from penstock.domain.accounts.price import money
from penstock.domain.accounts.usage_report import UsageGroup, UsageRow
from penstock.domain.api_errors import BadRequest
from penstock.service.admin import usage

router = APIRouter(prefix="/v1", tags=["usage"], responses=DOCUMENTED)

_WIDTHS: Final = {"1h": timedelta(hours=1), "1d": timedelta(days=1)}
_LIMITS: Final = {"1h": (24, 168), "1d": (7, 31)}
_LATEST: Final = 4_102_444_800
"""The year 2100."""

Group = Literal["model", "batch", "lane", "api_key_id"]


class Result(BaseModel):
    """What was used in one bucket, or the part of it that its group names."""

    object: Literal["organization.usage.completions.result"] = "organization.usage.completions.result"
    num_model_requests: int = Field(description="Answered lines, and waiting calls.")
    input_tokens: int
    input_cached_tokens: int = Field(description="Of the input tokens.")
    output_tokens: int
    output_reused_tokens: int = Field(description="Of the output tokens: those of answers that were there already.")
    output_reasoning_tokens: int = Field(description="Of the output tokens.")
    cost: CostShape | None = Field(description="Null without any price.")
    saved: str | None = Field(
        description="What the cached and reused tokens would have cost more (prefix cache, equal lines, shared cache),"
        " at the price that their hour ended with, in units of the currency; null without any price."
    )
    model: str | None = Field(description="Null unless grouped by it.")
    batch: bool | None = Field(description="Lines of batches and jobs, or waiting calls; null unless grouped by it.")
    lane: str | None = Field(
        description="Of lines: the lane that their batch was in. Null unless grouped by it, of waiting calls, and of "
        "what was recorded before lanes were kept (`batch` tells these apart)."
    )
    api_key_id: str | None = Field(
        description="Whose key created the batch or job, or made the call. Null unless grouped by it, and of what has "
        "none: it was recorded before keys were kept, or an hour's first 100 keys of the model are others."
    )
    api_key_name: str | None = Field(description="How that key is called; null also where it is gone.")
    project_id: None = None
    user_id: None = None


class Bucket(BaseModel):
    """One span of time."""

    object: Literal["bucket"] = "bucket"
    start_time: int
    end_time: int
    results: list[Result]


class UsagePage(BaseModel):
    """Buckets in the order of time."""

    object: Literal["page"] = "page"
    data: list[Bucket]
    has_more: bool
    next_page: str | None


Start = Annotated[int, Query(ge=0, le=_LATEST, description="Unix seconds; cut to a whole hour.")]
End = Annotated[int | None, Query(ge=0, le=_LATEST, description="Unix seconds; now unless told.")]
Width = Annotated[Literal["1h", "1d"], Query(description="Length of a bucket.")]
Limit = Annotated[
    int | None,
    Query(
        ge=1,
        description="Buckets: 24 of at most 168 hours, 7 of at most 31 days. A page of 10,000 results ends sooner.",
    ),
]
GroupBy = Annotated[list[Group] | None, Query(description="Results apart by these, one or several.")]
Models = Annotated[list[str] | None, Query(max_length=100, description="Of these models only.")]
PageToken = Annotated[str | None, Query(max_length=20, description="`next_page` of the page before.")]


@dataclass(frozen=True)
class UsageAsked:
    """Which usage is asked for."""

    start_time: int
    end_time: int | None
    bucket_width: Literal["1h", "1d"]
    limit: int | None
    group_by: list[Group] | None
    models: list[str] | None
    page: str | None


async def _asked(
    start_time: Start,
    end_time: End = None,
    bucket_width: Width = "1d",
    limit: Limit = None,
    group_by: GroupBy = None,
    models: Models = None,
    page: PageToken = None,
) -> UsageAsked:
    return UsageAsked(start_time, end_time, bucket_width, limit, group_by, models, page)


AskedUsage = Annotated[UsageAsked, Depends(_asked)]
"""The query of a request for usage."""


@router.get("/usage", summary="What was used, and its cost")
@router.get("/organization/usage/completions", summary="The same under OpenAI's path")
async def get_usage(tenant: Tenant, here: Here, asked: AskedUsage) -> UsagePage:
    """Tokens, GPU-seconds and cost of the tenant's recorded lines and waiting calls, in buckets of time."""
    return await of_tenant(here, tenant, asked)


async def of_tenant(here: Platform, tenant: str, asked: UsageAsked) -> UsagePage:
    """A tenant's usage; raises BadRequest for what can't be asked, NotFound for a model that is not known."""
    usual, most = _LIMITS[asked.bucket_width]
    limit, page = asked.limit, asked.page
    if limit is not None and limit > most:
        raise BadRequest(f"limit must be at most {most} for buckets of {asked.bucket_width}.", param="limit")
    if page is not None and not (page.isascii() and page.isdigit() and int(page) <= _LATEST):
        raise BadRequest("page must be the next_page of an answer.", param="page")
    found = await here.db.autocommit(
        usage.report,
        tenant,
        start=datetime.fromtimestamp(int(page) if page else asked.start_time, UTC),
        end=datetime.now(UTC) if asked.end_time is None else datetime.fromtimestamp(asked.end_time, UTC),
        width=_WIDTHS[asked.bucket_width],
        limit=limit or usual,
        by=frozenset(map(UsageGroup, asked.group_by or ())),
        models=asked.models,
    )
    buckets = [
        Bucket(
            start_time=int(span.start.timestamp()),
            end_time=int(span.end.timestamp()),
            results=[_result(one, found.currency) for one in span.used],
        )
        for span in found.spans
    ]
    following = None if found.next_start is None else str(int(found.next_start.timestamp()))
    return UsagePage(data=buckets, has_more=following is not None, next_page=following)


def _result(one: UsageRow, currency: str | None) -> Result:
    return Result(
        num_model_requests=one.requests,
        input_tokens=one.usage.input_tokens,
        input_cached_tokens=one.usage.cached_tokens,
        output_tokens=one.usage.output_tokens,
        output_reused_tokens=one.usage.reused_output_tokens,
        output_reasoning_tokens=one.usage.reasoning_tokens,
        cost=shapes.cost(one.cost, currency),
        saved=None if currency is None else money(one.saved),
        model=one.model,
        batch=one.batch,
        lane=one.lane,
        api_key_id=one.api_key,
        api_key_name=one.key_name,
    )
