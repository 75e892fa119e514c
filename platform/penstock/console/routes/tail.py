"""`/console/batches/{id}/results/tail`: the last answers of a running batch, the newest first, as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from penstock.console import pages
from penstock.console.batches import tail
from penstock.console.batches.nouns import BATCHES
from penstock.console.context import Context
from penstock.console.live.live_stream import LiveStream
from penstock.console.navigation import BASE
from penstock.console.routes.batches import Live
from penstock.console.session import LoggedIn, LookingOn, Visitor

router = APIRouter(prefix=BASE)


@router.get("/batches/{id}/results/tail")
async def newest(request: Request, visitor: LoggedIn, id: str, live: Live = "on") -> Response:
    """The last answers."""
    return pages.page(request, visitor, "tail.html", **await _found(visitor, id), noun=BATCHES, live=live != "off")


async def _watched(request: Request, context: Context, visitor: LookingOn, id: str) -> AsyncIterator[LiveStream]:
    key = ("tail", id, visitor.access.tenant, request.scope.get("root_path"))
    async with LiveStream(context, visitor, f"/v1/batches/{id}/events", key).opened() as stream:
        yield stream


@router.get("/batches/{id}/results/tail/stream", response_class=EventSourceResponse)
async def newest_stream(
    request: Request, id: str, stream: Annotated[LiveStream, Depends(_watched)]
) -> AsyncIterator[ServerSentEvent]:
    """The same, whenever more was answered, until the batch has ended."""

    async def made(data: str, event: Any) -> list[str]:
        mark = (event["status"], *sorted(event["request_counts"].items()))
        version, values = await stream.topic.found(mark, lambda: _found(stream.visitor, id))
        return [stream.topic.made(version, lambda: pages.text(request, stream.visitor, "tail_lines.html", **values))]

    async for event in stream.sent(made):
        yield event


async def _found(visitor: Visitor, id: str) -> dict[str, Any]:
    batch = await visitor.api.get(f"/v1/batches/{id}")
    counts = batch["request_counts"]
    done = counts["completed"] + counts["failed"]
    return {"batch": batch, "tail": await tail.read(visitor.api, id, done), "done": done}
