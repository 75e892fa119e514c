"""Bulk acts and timelines, the same for batches and jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, StringConstraints

from penstock.api.auth import Acting, Tenant, access_of
from penstock.api.http import body
from penstock.api.http.body import Asked, Text
from penstock.api.http.errors import DOCUMENTED
from penstock.api.platform import Here, Platform
from penstock.api.repeats import CreateHeaders, Repeats
from penstock.api.schemas.batch_filters import FilterBody
from penstock.domain.api_errors import BadRequest
from penstock.domain.work.batch import BatchState
from penstock.domain.work.retry import Retry
from penstock.service.control import bulk
from penstock.service.control.bulk import BulkAct, BulkOutcome
from penstock.service.core.transaction import Transaction
from penstock.service.intake import retry
from penstock.service.intake.retry import RetryRequest
from penstock.service.views import batch_timeline

router = APIRouter(responses=DOCUMENTED)

_MAX_JSON_BYTES: Final = 256 * 1024
_Id = Annotated[Text, StringConstraints(min_length=1, max_length=200)]


class Bulk(Asked):
    """Either `ids` or a `filter`."""

    ids: Annotated[list[_Id], Field(min_length=1, max_length=bulk.MOST)] | None = Field(
        None, description="These; one that is named twice counts once."
    )
    filter: FilterBody | None = Field(
        None, description=f"All of which this is so, newest first, {bulk.MOST:,} in one call; an empty one is all."
    )
    after: Annotated[Text, StringConstraints(max_length=200)] | None = Field(
        None, description="With `filter`: the `last_id` of the answer before, if that had more."
    )


class BulkRetry(Bulk):
    """Either `ids` or a `filter`; of each, every line without an answer, as it was."""

    ids: Annotated[list[_Id], Field(min_length=1, max_length=bulk.MOST_RETRIED)] | None = Field(
        None, description="These; one that is named twice counts once."
    )
    filter: FilterBody | None = Field(
        None,
        description=f"All of which this is so, newest first, {bulk.MOST_RETRIED:,} in one call; an empty one is all.",
    )


BODIES: Final = (Bulk, BulkRetry)


class BulkErrorShape(BaseModel):
    """Why nothing was done."""

    code: str | None
    message: str


class BulkOutcomeShape(BaseModel):
    """What came of it for one."""

    id: str
    outcome: Literal["done", "failed"] = Field(description="`done`: also where it was so already.")
    status: str | None = Field(description="How it is then; null if it failed.")
    paused: bool | None
    error: BulkErrorShape | None
    retry: str | None = Field(None, description="Of a retry: the id of the batch or job that was made.")


class BulkShape(BaseModel):
    """What came of it for each, in the order of `ids`, or newest first."""

    object: Literal["list"] = "list"
    data: list[BulkOutcomeShape]
    first_id: str | None
    last_id: str | None
    has_more: bool = Field(description="The filter chooses more: ask again, with `after`.")


class TimelineEntryShape(BaseModel):
    """Something that happened."""

    at: float = Field(description="Unix seconds.")
    event: str = Field(
        description="`state`, `first_answer`, `retried`, `webhook`, or an act: `batch.paused`, `batch.updated`, …"
    )
    details: dict[str, Any] = Field(
        description="Of `state`: `from` and `to`; of `retried`: the retry's `id`; of `webhook`: `delivery`, `type`, "
        "`status`, `attempts`; of an act: what it changed."
    )


class TimelineShape(BaseModel):
    """What happened, oldest first; the first 100 of every sort."""

    object: Literal["list"] = "list"
    data: list[TimelineEntryShape]


async def _act(request: Request, here: Platform, tenant: str, kind: str, what: BulkAct) -> BulkShape:
    asked = body.check(Bulk, body.decode(await body.read(request, _MAX_JSON_BYTES)))
    ids, more = await _ids(here, tenant, kind, asked, bulk.MOST)
    return _told(await bulk.act(here.db, tenant, kind, what, ids, here.settings), more)


async def _retry(request: Request, here: Platform, tenant: str, kind: str, repeats: CreateHeaders) -> BulkShape:
    maker = access_of(request)
    maker.check_budget()
    raw = await body.read(request, _MAX_JSON_BYTES)
    ids, more = await _ids(here, tenant, kind, body.check(BulkRetry, body.decode(raw)), bulk.MOST_RETRIED)
    again = RetryRequest(allowed_models=maker.models, api_key=maker.key)

    def do(tx: Transaction, id: str) -> BulkOutcome:
        """The same key makes one retry of each, also where the first call was cut half-way."""
        made = retry.retry(tx, tenant, kind, id, Retry(failed=True), again, repeats.part(id), here.settings)
        return BulkOutcome(id, made.state, retry=made.id)

    return _told(await bulk.each(here.db, ids, do), more)


async def _ids(here: Platform, tenant: str, kind: str, asked: Bulk, most: int) -> tuple[list[str], bool]:
    """Which are meant, and whether the filter chooses more."""
    if (asked.ids is None) == (asked.filter is None):
        raise BadRequest("Send either 'ids' or 'filter'.", param="ids")
    if asked.ids is not None and asked.after is not None:
        raise BadRequest("'after' goes with 'filter'.", param="after")
    if asked.filter is None:
        return asked.ids or [], False
    filter = asked.filter.chosen()
    found = await here.db.autocommit(bulk.chosen, tenant, kind, filter, after=asked.after, limit=most + 1)
    return found[:most], len(found) > most


def _told(found: Sequence[BulkOutcome], more: bool) -> BulkShape:
    outcomes = [_outcome(one) for one in found]
    first, last = (outcomes[0].id, outcomes[-1].id) if outcomes else (None, None)
    return BulkShape(data=outcomes, first_id=first, last_id=last, has_more=more)


def _outcome(one: BulkOutcome) -> BulkOutcomeShape:
    if one.error is not None:
        error = BulkErrorShape(code=one.error.code, message=one.error.message)
        return BulkOutcomeShape(id=one.id, outcome="failed", status=None, paused=None, error=error)
    assert one.state is not None, "it was done"
    paused = one.state is BatchState.PAUSED
    status = str(BatchState.IN_PROGRESS if paused else one.state)
    return BulkOutcomeShape(id=one.id, outcome="done", status=status, paused=paused, error=None, retry=one.retry)


async def _timeline(here: Platform, tenant: str, kind: str, id: str) -> TimelineShape:
    found = await here.db.autocommit(batch_timeline.timeline, tenant, kind, id)
    return TimelineShape(
        data=[TimelineEntryShape(at=one.at.timestamp(), event=one.what, details=one.details) for one in found]
    )


_BODY: Final = body.documented(Bulk)


@router.post("/v1/batches/cancel", summary="Cancel many batches", tags=["batches"], openapi_extra=_BODY)
async def cancel_batches(request: Request, tenant: Tenant, here: Acting) -> BulkShape:
    """Cancel these, or all that a filter chooses, each by itself: one that can't be is told, the others are done."""
    return await _act(request, here, tenant, "batch", BulkAct.CANCEL)


@router.post("/v1/batches/pause", summary="Pause many batches", tags=["batches"], openapi_extra=_BODY)
async def pause_batches(request: Request, tenant: Tenant, here: Acting) -> BulkShape:
    """Pause these, or all that a filter chooses, each by itself."""
    return await _act(request, here, tenant, "batch", BulkAct.PAUSE)


@router.post("/v1/batches/resume", summary="Resume many batches", tags=["batches"], openapi_extra=_BODY)
async def resume_batches(request: Request, tenant: Tenant, here: Acting) -> BulkShape:
    """Let these, or all that a filter chooses, go on, each by itself."""
    return await _act(request, here, tenant, "batch", BulkAct.RESUME)


@router.post(
    "/v1/batches/retry", summary="Retry many batches", tags=["batches"], openapi_extra=body.documented(BulkRetry)
)
async def retry_batches(request: Request, tenant: Tenant, here: Acting, repeats: Repeats) -> BulkShape:
    """Ask failed lines of these, or of all that a filter chooses, again, each in a batch of its own (`retry`).

    One that has not ended, or has no failed line, is told. `status` is the new batch's.
    """
    return await _retry(request, here, tenant, "batch", repeats)


@router.post("/v1/jobs/retry", summary="Retry many jobs", tags=["jobs"], openapi_extra=body.documented(BulkRetry))
async def retry_jobs(request: Request, tenant: Tenant, here: Acting, repeats: Repeats) -> BulkShape:
    """As `/v1/batches/retry`."""
    return await _retry(request, here, tenant, "job", repeats)


@router.post("/v1/jobs/cancel", summary="Cancel many jobs", tags=["jobs"], openapi_extra=_BODY)
async def cancel_jobs(request: Request, tenant: Tenant, here: Acting) -> BulkShape:
    """As `/v1/batches/cancel`."""
    return await _act(request, here, tenant, "job", BulkAct.CANCEL)


@router.post("/v1/jobs/pause", summary="Pause many jobs", tags=["jobs"], openapi_extra=_BODY)
async def pause_jobs(request: Request, tenant: Tenant, here: Acting) -> BulkShape:
    """As `/v1/batches/pause`."""
    return await _act(request, here, tenant, "job", BulkAct.PAUSE)


@router.post("/v1/jobs/resume", summary="Resume many jobs", tags=["jobs"], openapi_extra=_BODY)
async def resume_jobs(request: Request, tenant: Tenant, here: Acting) -> BulkShape:
    """As `/v1/batches/resume`."""
    return await _act(request, here, tenant, "job", BulkAct.RESUME)


@router.get("/v1/batches/{batch_id}/timeline", summary="Look at what happened to a batch", tags=["batches"])
async def get_batch_timeline(batch_id: str, tenant: Tenant, here: Here) -> TimelineShape:
    """Moves of its state, its first answer, what was done to it, its retries and webhook deliveries, oldest first.

    A while after its end pauses are known from the acts alone, and the first answer is not.
    """
    return await _timeline(here, tenant, "batch", batch_id)


@router.get("/v1/jobs/{job_id}/timeline", summary="Look at what happened to a job", tags=["jobs"])
async def get_job_timeline(job_id: str, tenant: Tenant, here: Here) -> TimelineShape:
    """As `/v1/batches/{batch_id}/timeline`."""
    return await _timeline(here, tenant, "job", job_id)
