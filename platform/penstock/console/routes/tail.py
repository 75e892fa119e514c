"""`/console/batches/{id}/results/tail`: the last answers of a running batch, the newest first, as they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from cachetools import TTLCache
from fastapi import APIRouter, Depends, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from penstock.console import pages, tail
from penstock.console.api_client import ApiProblem
from penstock.console.context import ConsoleContext, Context
from penstock.console.navigation import BASE
from penstock.console.routes.batches import BATCHES
from penstock.console.session import LoggedIn, Visitor
from penstock.domain.api_errors import PenstockError, Unauthorized
from penstock.domain.limits.limit import LimitName
from penstock.domain.single_flight import SingleFlight
from penstock.service.admin import sessions

router = APIRouter(prefix=BASE)

_ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})
_LOOK_SECONDS: Final = 1.0
_SESSION_SECONDS: Final = 10.0
"""So often it is looked whether the session is still valid."""
_ENDLESS: Final = "penstock.endless"
"""In a request's scope: what ends an answer that goes on, when the process stops."""

Looked = dict[str, Any]
_looked: TTLCache[tuple[str, str], Looked] = TTLCache(1_000, _LOOK_SECONDS)
_looking: SingleFlight[tuple[str, str], Looked] = SingleFlight()
"""One look a second serves all who watch a batch."""


@dataclass(frozen=True)
class _Watch:
    """What one viewer watches."""

    request: Request
    context: ConsoleContext
    visitor: Visitor
    id: str
    first: Looked
    stopping: asyncio.Event


@router.get("/batches/{id}/results/tail")
async def tail_of_batch(request: Request, visitor: LoggedIn, id: str, live: Literal["", "off"] = "") -> Response:
    """The last answers."""
    return pages.page(request, visitor, "tail.html", **await _look(visitor, id), noun=BATCHES, live=live != "off")


async def _watch(request: Request, context: Context, visitor: LoggedIn, id: str) -> AsyncIterator[_Watch]:
    with context.limiter.held(visitor.access, LimitName.WAITS):
        stopping = asyncio.Event()
        request.scope.setdefault(_ENDLESS, []).append(stopping.set)
        yield _Watch(request, context, visitor, id, await _look(visitor, id), stopping)


@router.get("/batches/{id}/results/tail/stream", response_class=EventSourceResponse)
async def tail_stream(watch: Annotated[_Watch, Depends(_watch)]) -> AsyncIterator[ServerSentEvent]:
    """The same, whenever more was answered, until the batch has ended."""
    now, had, seen_at = watch.first, "", time.monotonic()
    while not watch.stopping.is_set():
        part = pages.text(watch.request, watch.visitor, "tail_lines.html", **now)
        if part != had:
            yield ServerSentEvent(raw_data=part)
            had = part
        if now["ended"]:
            yield ServerSentEvent(raw_data="", event="end")
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(watch.stopping.wait(), _LOOK_SECONDS)
        if time.monotonic() - seen_at >= _SESSION_SECONDS:
            seen_at = time.monotonic()
            if not await _is_valid(watch):
                yield ServerSentEvent(raw_data="", event="end")
                return
        try:
            now = await _look(watch.visitor, watch.id)
        except ApiProblem:
            return  # it was deleted meanwhile, for instance


async def _look(visitor: Visitor, id: str) -> Looked:
    key = (visitor.access.tenant, id)
    return _looked.get(key) or await _looking.ask(key, lambda: _found(visitor, id))


async def _found(visitor: Visitor, id: str) -> Looked:
    batch = await visitor.api.get(f"/v1/batches/{id}")
    counts = batch["request_counts"]
    done = counts["completed"] + counts["failed"]
    found = await tail.read(visitor.api, id, done)
    looked = {"batch": batch, "tail": found, "done": done, "ended": batch["status"] in _ENDED}
    _looked[visitor.access.tenant, id] = looked
    return looked


async def _is_valid(watch: _Watch) -> bool:
    context = watch.context
    try:
        await context.db.autocommit(sessions.access_of, watch.visitor.token, context.settings, asks=False)
    except Unauthorized:
        return False
    except PenstockError:
        return True  # the database is away for a moment
    return True
