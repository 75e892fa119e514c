"""Live streams: the parts of a page, sent anew when they changed.

Who looks has a stream of the API's own, which says when something changed; the database is looked at by its watch, once
a second for all. What a stream does not say (files, a timeline, the rows of a list) is asked for once by change.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from fastapi.sse import ServerSentEvent

from penstock.console.api_client import ApiProblem
from penstock.console.context import ConsoleContext
from penstock.console.session import Visitor

_OVER: Final = '<div class="note warn" role="status"><p>This session is over: load the page again to log in.</p></div>'
END: Final = "end"
"""The event after which a page asks no more."""


class LiveStream:
    """One viewer's: opened before its first event, so that a refusal of the API has its page."""

    def __init__(self, context: ConsoleContext, visitor: Visitor, path: str, key: Hashable) -> None:
        self.visitor = visitor
        self._context = context
        self._path = path
        self._key = key

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[LiveStream]:
        """Watch; raises ApiProblem."""
        async with self.visitor.api.events(self._path) as self._events:
            watched = self._context.session_watch.watched(self.visitor.token, self._events.end)
            with self._context.topics.topic(self._key) as self.topic:
                async with watched as self._watched:
                    yield self

    async def sent(self, made: Callable[[str, Any], Awaitable[list[str]]]) -> AsyncIterator[ServerSentEvent]:
        """What is sent: parts, each when it changed, until it is over, or the process stops; then a page comes back.

        `made` gives the parts after an event, of its data as text and as what it says.
        """
        had: list[str] = []
        async for data in self._events:
            event: Any = self.topic.made(data, partial(json.loads, data))
            try:
                parts = await made(data, event)
            except ApiProblem:
                return  # it was deleted meanwhile, for instance
            if new := [part for part in parts if part not in had]:
                yield ServerSentEvent(raw_data="".join(new))
            had = parts
            if event.get("ended"):
                yield ServerSentEvent(raw_data="", event=END)
                return
        if self._watched.over:
            yield ServerSentEvent(raw_data=_OVER)
            yield ServerSentEvent(raw_data="", event=END)
