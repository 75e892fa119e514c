"""The stream of a live page: how it is, then each change, until the page is over or the viewer goes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from starlette.responses import StreamingResponse
from starlette.types import Message

from penstock.console import pages
from penstock.console.api_client import GrantedApi
from penstock.console.context import ConsoleContext, Context
from penstock.console.live.live_pages import END, LivePages
from penstock.console.scope import ENDLESS, HEAD
from penstock.console.session import LoggedInOperator, Visitor
from penstock.domain.limits.limit import LimitName

_QUIET_SECONDS: Final = 5.0
"""So often a comment is sent where nothing is new."""

Values = Callable[[GrantedApi], Awaitable[dict[str, Any]]]
"""Asks the API for what a template names."""


class PlatformStream:
    """What an operator's request for a stream needs; it counts as one of `waits_at_once` as long as it is open."""

    def __init__(self, request: Request, visitor: Visitor, context: ConsoleContext) -> None:
        self._request = request
        self._visitor = visitor
        self._context = context

    def of(self, template: str, values: Values, *about: str | None) -> StreamingResponse:
        """The stream of a part of a page, which is the same for all who ask it `about` the same."""
        request, visitor, access = self._request, self._visitor, self._visitor.access
        live: LivePages = request.app.state.live_pages
        # Whoever comes first asks for all who may see the same; the request's own end does not end it.
        api = self._context.api.of(dict(request.scope), _nothing, access)

        async def look() -> str:
            return pages.text(request, visitor, template, **await values(api))

        key = (template, about, request.scope.get("root_path", ""), access.tenant, access.models)

        async def told() -> AsyncIterator[bytes]:
            if HEAD in request.scope:
                return
            session_watch, token = self._context.session_watch, self._visitor.token
            async with live.watch(key, look) as watching, session_watch.watched(token, watching.leave) as session:
                request.scope.setdefault(ENDLESS, []).append(watching.leave)
                while not watching.ended:
                    news = await watching.next(_QUIET_SECONDS)
                    yield b": still here\n\n" if news is None else news
                if session.over:
                    yield END

        return StreamingResponse(told(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


async def _nothing() -> Message:
    """What a look has to read."""
    return {"type": "http.disconnect"}


async def _stream(request: Request, visitor: LoggedInOperator, context: Context) -> AsyncIterator[PlatformStream]:
    with context.limiter.held(visitor.access, LimitName.WAITS):
        yield PlatformStream(request, visitor, context)


Streamed = Annotated[PlatformStream, Depends(_stream)]
"""An operator watches a page."""
