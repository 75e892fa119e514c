"""Events of one batch or job, or of all that are open: server-sent events, a snapshot first, then what changes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from penstock.api.auth import GRANTED, Given, Known, access_of
from penstock.api.http import request_turns
from penstock.api.http.connection import ENDLESS
from penstock.api.http.errors import DOCUMENTED
from penstock.api.http.request_middleware import HEAD
from penstock.api.platform import Here, Platform
from penstock.api.schemas import batch_event
from penstock.api.schemas.batch_event import BatchEventShape, OpenBatchesShape
from penstock.domain.api_errors import Unauthorized, Unavailable
from penstock.domain.limits.limit import LimitName
from penstock.service.views.batch_watch import BatchNews, Watching

router = APIRouter()

_PATIENCE_SECONDS: Final = 10.0
"""So long the first look may take."""
_KEY_SECONDS: Final = 5.0
"""So often it is looked whether the key is still valid, and its client still there."""
_REFUSED: Final = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorEnvelope"}}}


def _documented(shape: str, what: str) -> dict[int | str, dict[str, Any]]:
    data = {"contentMediaType": "application/json", "contentSchema": {"$ref": f"#/components/schemas/{shape}"}}
    return {
        200: {
            "description": f"Events {what} with a `{shape}`; a comment each 15 seconds without.",
            "content": {"text/event-stream": {"itemSchema": {"properties": {"data": data}}}},
        },
        **{status: {"description": one["description"], "content": _REFUSED} for status, one in DOCUMENTED.items()},
    }


_EVENTS: Final = _documented("BatchEventShape", "`batch` (or `job`)")
_OPEN_EVENTS: Final = _documented("OpenBatchesShape", "`batches` (or `jobs`)")
BODIES: Final = (BatchEventShape, OpenBatchesShape)

_ONE_OF: Final = {"batches": "batch", "jobs": "job"}

News = BatchNews | tuple[BatchNews, ...]


@dataclass(frozen=True)
class _Stream:
    """What one client watches."""

    request: Request
    here: Platform
    key: str
    watching: Watching[BatchNews] | Watching[tuple[BatchNews, ...]]
    first: News


async def _opened(
    request: Request,
    here: Platform,
    given: Given,
    watched: AbstractAsyncContextManager[Watching[BatchNews] | Watching[tuple[BatchNews, ...]]],
) -> AsyncIterator[_Stream]:
    with here.limiter.held(access_of(request), LimitName.WAITS):
        async with watched as watching:
            request.scope.setdefault(ENDLESS, []).append(watching.leave)
            async with request_turns.of(request.scope).away():
                first = await watching.next(_PATIENCE_SECONDS)
            if first is None:
                raise Unavailable("The database does not answer; try again shortly.")
            yield _Stream(request, here, given.credentials if given else "", watching, first)


async def _batch(request: Request, batch_id: str, tenant: Known, here: Here, given: Given) -> AsyncIterator[_Stream]:
    async for stream in _opened(request, here, given, here.batch_watch.batch(tenant, "batch", batch_id)):
        yield stream


async def _job(request: Request, job_id: str, tenant: Known, here: Here, given: Given) -> AsyncIterator[_Stream]:
    async for stream in _opened(request, here, given, here.batch_watch.batch(tenant, "job", job_id)):
        yield stream


async def _open_batches(request: Request, tenant: Known, here: Here, given: Given) -> AsyncIterator[_Stream]:
    async for stream in _opened(request, here, given, here.batch_watch.open_page(tenant, "batch")):
        yield stream


async def _open_jobs(request: Request, tenant: Known, here: Here, given: Given) -> AsyncIterator[_Stream]:
    async for stream in _opened(request, here, given, here.batch_watch.open_page(tenant, "job")):
        yield stream


async def _told(stream: _Stream, kind: str) -> AsyncIterator[ServerSentEvent]:
    """Events, until the batch has ended, or its key, the client or this process goes."""
    if HEAD in stream.request.scope:
        return
    number, checked_at = 0, time.monotonic()
    news: News | None = stream.first
    while True:
        if news is not None:
            number += 1
            yield ServerSentEvent(data=_data(news, kind), event=kind, id=str(number))
        if stream.watching.ended:
            return
        news = await stream.watching.next(_KEY_SECONDS)
        if time.monotonic() - checked_at >= _KEY_SECONDS:
            checked_at = time.monotonic()
            if await stream.request.is_disconnected() or not await _is_valid(stream):
                return


def _data(news: News, kind: str) -> BatchEventShape | OpenBatchesShape:
    if isinstance(news, BatchNews):
        return batch_event.event(news)
    return batch_event.open_batches(news, _ONE_OF[kind])


async def _is_valid(stream: _Stream) -> bool:
    if GRANTED in stream.request.scope:
        return True  # whoever granted it ends it
    try:
        await stream.here.key_cache.access_of(stream.key)
    except Unauthorized:
        return False
    except Unavailable:
        return True
    return True


@router.get(
    "/v1/batches/events",
    summary="Watch open batches",
    tags=["batches"],
    response_class=EventSourceResponse,
    responses=_OPEN_EVENTS,
)
async def get_open_batch_events(stream: Annotated[_Stream, Depends(_open_batches)]) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events: your newest open batches, then all of them again whenever one changes.

    As `/v1/batches/{batch_id}/events`, but without an end. There are 50 of them at most; one that is no longer
    among them has ended.
    """
    async for event in _told(stream, "batches"):
        yield event


@router.get(
    "/v1/jobs/events",
    summary="Watch open jobs",
    tags=["jobs"],
    response_class=EventSourceResponse,
    responses=_OPEN_EVENTS,
)
async def get_open_job_events(stream: Annotated[_Stream, Depends(_open_jobs)]) -> AsyncIterator[ServerSentEvent]:
    """As `/v1/batches/events`."""
    async for event in _told(stream, "jobs"):
        yield event


@router.get(
    "/v1/batches/{batch_id}/events",
    summary="Watch a batch",
    tags=["batches"],
    response_class=EventSourceResponse,
    responses=_EVENTS,
)
async def get_batch_events(stream: Annotated[_Stream, Depends(_batch)]) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events: how it stands, then each change, about one a second at most, until it has ended.

    Every event is whole, so `last-event-id` need not be sent, and nothing is lost by coming back. A stream ends when
    its batch has ended (`ended` in the last event), some 10 seconds after its key was revoked, and when the API
    process stops: come back then. Streams count as `waits_at_once`.
    """
    async for event in _told(stream, "batch"):
        yield event


@router.get(
    "/v1/jobs/{job_id}/events",
    summary="Watch a job",
    tags=["jobs"],
    response_class=EventSourceResponse,
    responses=_EVENTS,
)
async def get_job_events(stream: Annotated[_Stream, Depends(_job)]) -> AsyncIterator[ServerSentEvent]:
    """As `/v1/batches/{batch_id}/events`."""
    async for event in _told(stream, "job"):
        yield event
