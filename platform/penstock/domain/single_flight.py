"""A single flight: who asks for what somebody asks for already waits for the same answer, instead of asking again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

Key = TypeVar("Key")
Answer = TypeVar("Answer")


class SingleFlight(Generic[Key, Answer]):
    """One process's, on one event loop."""

    def __init__(self) -> None:
        self._asked: dict[Key, asyncio.Task[Answer]] = {}

    async def ask(self, key: Key, how: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """The answer, or its error, of whoever asked first. Who leaves early takes it from nobody."""
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = asyncio.create_task(how())
            asked.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(asked)

    def _forget(self, key: Key, done: asyncio.Task[Answer]) -> None:
        del self._asked[key]
        if not done.cancelled():
            done.exception()  # seen, though everybody who asked may have left
