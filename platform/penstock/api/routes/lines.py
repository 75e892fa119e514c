"""`/v1/batches/{id}/lines` and `/errors`, and the same of jobs: the lines one by one, and how they failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query

from penstock.api.auth import Tenant
from penstock.api.http.errors import DOCUMENTED, ErrorEnvelope
from penstock.api.platform import Here, Platform
from penstock.api.schemas import line_shapes
from penstock.api.schemas.line_shapes import (
    MOST_WITH_TEXT,
    Code,
    CustomId,
    ErrorGroups,
    Include,
    LineAfter,
    LineLimit,
    LineList,
    StatusCode,
)  # fmt: skip
from penstock.domain.api_errors import BadRequest
from penstock.domain.work.line_query import LineQuery, LineState
from penstock.service.results import line_page

router = APIRouter(responses=DOCUMENTED)

State = Annotated[LineState | None, Query(description="Only lines that are `answered`, `failed` or `open`.")]
_GONE: Final[dict[int | str, dict[str, Any]]] = {
    410: {
        "model": ErrorEnvelope,
        "description": "`results_gone`: the files were deleted or have expired · `not_indexed`: it ended before this "
        "platform indexed lines; read its files · `input_gone`: with `custom_id`, the input file is gone.",
    }
}


@dataclass(frozen=True)
class _Asked:
    """Which lines, and what of each beside what came of it."""

    query: LineQuery
    include: frozenset[str]
    """Of `request` and `response`."""


async def _asked(
    state: State = None,
    code: Code = None,
    status_code: StatusCode = None,
    custom_id: CustomId = None,
    after: LineAfter = "0",
    limit: LineLimit = 100,
    include: Include = None,
) -> _Asked:
    query = LineQuery(line_shapes.number_of(after), limit, state, code, status_code, custom_id)
    if include and limit > MOST_WITH_TEXT:
        raise BadRequest(f"With 'include' the limit is at most {MOST_WITH_TEXT}.", param="limit")
    return _Asked(query, frozenset(include.split(",") if include else ()))


LinesAsked = Annotated[_Asked, Depends(_asked)]


async def _lines(here: Platform, tenant: str, kind: str, id: str, asked: _Asked) -> LineList:
    texts = {name: name in asked.include for name in ("request", "response")}
    return line_shapes.lines(await line_page.page(here.db, here.blobs, tenant, kind, id, asked.query, **texts))


@router.get("/v1/batches/{batch_id}/lines", summary="List a batch's lines", tags=["batches"], responses=_GONE)
async def list_batch_lines(batch_id: str, tenant: Tenant, here: Here, asked: LinesAsked) -> LineList:
    """What became of each line, in the order of the input, while the batch runs and once it has ended.

    A page costs a few reads of the files' indexes, or one look at the running batch's own segments.
    """
    return await _lines(here, tenant, "batch", batch_id, asked)


@router.get("/v1/batches/{batch_id}/errors", summary="Group a batch's failed lines", tags=["batches"])
async def list_batch_errors(batch_id: str, tenant: Tenant, here: Here) -> ErrorGroups:
    """How many lines failed with which status and code by now: counted when they were recorded, at most 64 groups."""
    return line_shapes.groups(await line_page.errors(here.db, tenant, "batch", batch_id))


@router.get("/v1/jobs/{job_id}/lines", summary="List a job's lines", tags=["jobs"], responses=_GONE)
async def list_job_lines(job_id: str, tenant: Tenant, here: Here, asked: LinesAsked) -> LineList:
    """What became of each line, in the order of the requests, while the job runs and once it has ended."""
    return await _lines(here, tenant, "job", job_id, asked)


@router.get("/v1/jobs/{job_id}/errors", summary="Group a job's failed lines", tags=["jobs"])
async def list_job_errors(job_id: str, tenant: Tenant, here: Here) -> ErrorGroups:
    """How many lines failed with which status and code by now, at most 64 groups."""
    return line_shapes.groups(await line_page.errors(here.db, tenant, "job", job_id))
