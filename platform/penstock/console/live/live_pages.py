"""Live pages: who watches which page of the platform; one look a second serves all of a process who watch the same.

A page is looked at while somebody watches it, rendered once, and the same bytes go to all. A viewer has the latest
picture and no queue: one that is slow misses some, and holds nothing up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager, suppress
from typing import Final

import structlog

from penstock.console.api_client import ApiProblem
from penstock.service.views.batch_watch import Watching

log = structlog.get_logger()

LOOK_SECONDS: Final = 1.0
_FAILED_SECONDS: Final = 5.0
"""So long after a look that failed the next one comes."""
END: Final = b"event: end\ndata: over\n\n"
"""The last event of a page that is no more: nobody comes back for it."""

Look = Callable[[], Awaitable[str]]
"""Asks what a page shows, and renders it."""


def event(html: str) -> bytes:
    """A picture as a server-sent event."""
    return "".join(f"data: {line}\n" for line in html.splitlines()).encode() + b"\n"


class _LivePage:
    """One that somebody watches."""

    def __init__(self, look: Look, clock: Callable[[], float]) -> None:
        self._look = look
        self._clock = clock
        self._latest: bytes | None = None
        self._viewers: set[Watching[bytes]] = set()
        self.is_over = False
        self._left = asyncio.Event()
        self._task = asyncio.create_task(self._go())

    def enter(self) -> Watching[bytes]:
        viewer: Watching[bytes] = Watching(None)
        self._viewers.add(viewer)
        if self._latest is not None:
            viewer.tell(self._latest, last=False)
        return viewer

    def leave(self, viewer: Watching[bytes]) -> bool:
        """Whether nobody is left."""
        self._viewers.discard(viewer)
        if not self._viewers:
            self._left.set()  # a look that goes on ends by itself: cut off in the midst it would cost its connection
        return not self._viewers

    async def _go(self) -> None:
        while not self._left.is_set():
            began, pause = self._clock(), LOOK_SECONDS
            try:
                self._tell(event(await self._look()))
            except ApiProblem as problem:
                if problem.status == 404:
                    self.is_over = True
                    self._tell(END, last=True)
                    return
                pause = _FAILED_SECONDS
            except Exception as error:  # viewers have what was seen before, and the next look comes
                log.warning("live_look_failed", error=repr(error)[:300])
                pause = _FAILED_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(self._left.wait(), max(0.0, began + pause - self._clock()))

    def _tell(self, news: bytes, *, last: bool = False) -> None:
        if news != self._latest:
            self._latest = news
            for one in self._viewers:
                one.tell(news, last=last)


class LivePages:
    """One process's, on its event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pages: dict[Hashable, _LivePage] = {}

    @asynccontextmanager
    async def watch(self, key: Hashable, look: Look) -> AsyncIterator[Watching[bytes]]:
        """Watch a page; `look` is the first viewer's of this `key`, for which all must see the same."""
        page = self._pages.get(key)
        if page is None or page.is_over:
            page = self._pages[key] = _LivePage(look, self._clock)
        viewer = page.enter()
        try:
            yield viewer
        finally:
            if page.leave(viewer) and self._pages.get(key) is page:
                del self._pages[key]
