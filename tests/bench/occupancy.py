"""Occupancy: what an engine did while a batch ran, from its own counters, looked at once a second on either side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bench import counters

LOOK_SECONDS: Final = 1.0


@dataclass
class Load:
    """What happened between two moments."""

    running: list[float] = field(default_factory=list)
    """Requests that the engine computed, at each look."""
    waiting: list[float] = field(default_factory=list)
    """Requests in its own queue."""
    prompt_tokens: float = 0.0
    generation_tokens: float = 0.0
    answered: float = 0.0
    prefix_queries: float = 0.0
    """Prompt tokens that were looked up in its prefix cache."""
    prefix_hits: float = 0.0

    @property
    def mean_running(self) -> float:
        """The mean of all looks."""
        return sum(self.running) / len(self.running) if self.running else 0.0

    @property
    def hit_rate(self) -> float:
        """Part of the looked up tokens that were found."""
        return self.prefix_hits / self.prefix_queries if self.prefix_queries else 0.0

    def json(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)


@asynccontextmanager
async def watched(look: Callable[[], Awaitable[counters.Counts]]) -> AsyncIterator[Load]:
    """Fill the load that is given out until the end of the `with`; a look that fails is left out."""
    load, before = Load(), await look()
    over = asyncio.Event()

    async def watch() -> None:
        due = time.monotonic() + LOOK_SECONDS
        while not over.is_set():
            try:
                await asyncio.wait_for(over.wait(), max(0.0, due - time.monotonic()))
            except asyncio.TimeoutError:  # noqa: UP041 – in an engine's Python before 3.11 it is not TimeoutError
                due += LOOK_SECONDS
                try:
                    now = await look()
                except (asyncio.TimeoutError, TimeoutError, OSError):  # noqa: UP041
                    continue
                load.running.append(now.running)
                load.waiting.append(now.waiting)

    task = asyncio.create_task(watch())
    try:
        yield load
    finally:
        over.set()
        await task
    after = await look()
    for name in ("prompt_tokens", "generation_tokens", "answered", "prefix_queries", "prefix_hits"):
        setattr(load, name, getattr(after, name) - getattr(before, name))
