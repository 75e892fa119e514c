"""The loop thread: one asyncio loop in a thread of its own, which gate, engine client and calls live on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar

import uvloop

C = TypeVar("C")


class LoopThread:
    """The asyncio loop's thread, from `with` to its end."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="loop", daemon=True)

    def __enter__(self) -> LoopThread:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Start a coroutine on the loop, from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    @contextmanager
    def living(self, context: AbstractAsyncContextManager[C]) -> Iterator[C]:
        """What lives on the loop from `with` to its end, for a thread that is not the loop's."""
        entered = self.run(context.__aenter__()).result()
        try:
            yield entered
        finally:
            self.run(context.__aexit__(None, None, None)).result()
