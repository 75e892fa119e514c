"""Live topics: what many see alike is asked for and made once, as long as anybody looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from cachetools import LRUCache

_MOST_MADE: Final = 16
"""Of one topic: viewers are at most a moment apart."""
T = TypeVar("T")


class LiveTopic:
    """What several see alike."""

    def __init__(self) -> None:
        self.viewers = 0
        self._lock = asyncio.Lock()
        self._mark: Hashable = self
        self._version = 0
        self._found: Any = None
        self._found_at = 0.0
        self._made: LRUCache[Hashable, Any] = LRUCache(_MOST_MADE)

    async def found(
        self, mark: Hashable, ask: Callable[[], Awaitable[Any]], *, keep_seconds: float = float("inf")
    ) -> tuple[int, Any]:
        """What `ask` finds, asked again where `mark` is another than before; and which version of it that is."""
        async with self._lock:
            if mark != self._mark or time.monotonic() - self._found_at > keep_seconds:
                self._found, self._mark, self._found_at = await ask(), mark, time.monotonic()
                self._version += 1
            return self._version, self._found

    def made(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` makes, once for equal keys: a text, or what an event's data says."""
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made


class LiveTopics:
    """One process's, on its event loop; a topic is there as long as somebody looks at it."""

    def __init__(self) -> None:
        self._topics: dict[Hashable, LiveTopic] = {}

    @contextmanager
    def topic(self, key: Hashable) -> Iterator[LiveTopic]:
        """Look at one; `key` says all that decides what is seen."""
        topic = self._topics.setdefault(key, LiveTopic())
        topic.viewers += 1
        try:
            yield topic
        finally:
            topic.viewers -= 1
            if not topic.viewers and self._topics.get(key) is topic:
                del self._topics[key]
