"""Abandoned requests: nobody waits for them any more, and the engine does not notice: it goes on with them.

Each holds its slot until the engine is done with it, or was told of it; its answer is dropped. All on one asyncio loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress


class AbandonedRequests:
    """Those of one engine. `tell` says a request's id to an engine that aborts by it; without it they run on."""

    def __init__(self, tell: Callable[[str], Awaitable[object]] | None = None) -> None:
        self._tell = tell
        self._running: set[asyncio.Task[None]] = set()
        self.total = 0
        """Since the start."""

    @property
    def running(self) -> int:
        """How many the engine still works on, as far as is known."""
        return len(self._running)

    def leave(self, rest: Awaitable[object], request_id: str, done: Callable[[], None]) -> None:
        """Wait for the rest of an answer in nobody's name, or tell the engine to stop; then call `done`."""
        self.total += 1
        task = asyncio.ensure_future(self._end(rest, request_id, done))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _end(self, rest: Awaitable[object], request_id: str, done: Callable[[], None]) -> None:
        waiting = asyncio.ensure_future(rest)
        try:
            if self._tell is not None:
                with suppress(Exception):  # whoever can't be told is told by the connection's end
                    await self._tell(request_id)
                waiting.cancel()
            with suppress(Exception, asyncio.CancelledError):  # whatever came of it, nobody wants it
                await waiting
        finally:
            waiting.cancel()
            done()

    async def close(self) -> None:
        """Let all go."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
