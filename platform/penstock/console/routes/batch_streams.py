"""`/console/batches/stream` and `/console/batches/{id}/stream` (and of jobs): what their pages show, as it changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from penstock.console import pages, qualifiers
from penstock.console.batches import batch_live, batch_rows
from penstock.console.batches.batch_words import Shape
from penstock.console.batches.nouns import Named
from penstock.console.context import Context
from penstock.console.live.live_stream import LiveStream
from penstock.console.navigation import BASE
from penstock.console.routes.batches import Asked
from penstock.console.session import LookingOn

router = APIRouter(prefix=BASE, default_response_class=EventSourceResponse)

_LIST_SECONDS = 10.0
"""So old the rows of a list may be once something happens: a job that came and went between two looks is among them."""


async def _of_one(
    request: Request, context: Context, visitor: LookingOn, noun: Named, id: str
) -> AsyncIterator[LiveStream]:
    key = (noun, id, visitor.access.tenant, visitor.writes, request.scope.get("root_path"))
    async with LiveStream(context, visitor, f"/v1{noun.path}/{id}/events", key).opened() as stream:
        yield stream


async def _of_list(
    request: Request, context: Context, visitor: LookingOn, noun: Named, q: Asked = ""
) -> AsyncIterator[LiveStream]:
    qualifiers.read(q, batch_rows.QUALIFIERS)
    key = (noun, q, visitor.access.tenant, visitor.writes, request.scope.get("root_path"))
    async with LiveStream(context, visitor, f"/v1{noun.path}/events", key).opened() as stream:
        yield stream


@router.get("/batches/stream")
@router.get("/jobs/stream")
async def stream_list(
    request: Request, noun: Named, stream: Annotated[LiveStream, Depends(_of_list)], q: Asked = ""
) -> AsyncIterator[ServerSentEvent]:
    """The rows of the first page, and how many there are."""
    visitor = stream.visitor

    async def made(data: str, event: Shape) -> list[str]:
        events = event["data"]
        version, values = await stream.topic.found(
            batch_rows.mark(events), lambda: batch_rows.found(visitor, noun, q), keep_seconds=_LIST_SECONDS
        )

        def rows() -> str:
            return pages.text(request, visitor, "batch_rows.html", **batch_rows.changed(values, events))

        return [stream.topic.made((version, data), rows)]

    async for event in stream.sent(made):
        yield event


@router.get("/batches/{id}/stream")
@router.get("/jobs/{id}/stream")
async def stream_one(
    request: Request, noun: Named, id: str, stream: Annotated[LiveStream, Depends(_of_one)]
) -> AsyncIterator[ServerSentEvent]:
    """How it stands; once it moved also what can be done, its files and its timeline; to its end."""
    visitor, has_members = stream.visitor, False

    async def made(data: str, event: Shape) -> list[str]:
        nonlocal has_members
        version, values = await stream.topic.found(
            batch_live.mark(event, has_members=has_members), lambda: batch_live.found(visitor, noun, id)
        )
        has_members = bool(values["members"])

        def part(name: str, values: dict[str, Any]) -> str:
            return pages.text(request, visitor, name, **values)

        return [
            stream.topic.made((version, data), lambda: part("batch_state.html", batch_live.changed(values, event))),
            stream.topic.made(version, lambda: part("batch_beside.html", batch_live.changed(values, event))),
        ]

    async for event in stream.sent(made):
        yield event
