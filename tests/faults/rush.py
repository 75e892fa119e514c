"""A rush: many cheap requests of one key over several APIs at once, and what a rate may let through of them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from penstock.service.limits.rates import GRANTS


@dataclass(frozen=True)
class Rush:
    """How it went."""

    answers: Counter[int]
    """How often which status came."""
    seconds: float
    processes: int

    @property
    def let_through(self) -> int:
        """What was answered other than 429."""
        return self.answers.total() - self.answers[429]

    def bound(self, per_minute: int) -> int:
        """The most that docs/tenants.md allows: the limit, a fiftieth of it a process, what flowed back meanwhile."""
        return per_minute + self.ahead(per_minute) + int(self.seconds * per_minute / 60) + 1

    def ahead(self, per_minute: int) -> int:
        """What the processes may let through beyond the limit, and pay back."""
        return self.processes * max(1, per_minute // GRANTS)


def rush(urls: Sequence[str], key: str, count: int, at_once: int = 64) -> Rush:
    """Ask for the list of models so many times, the APIs in turn."""
    return asyncio.run(_rush(urls, key, count, at_once))


async def _rush(urls: Sequence[str], key: str, count: int, at_once: int) -> Rush:
    answers: Counter[int] = Counter()
    turns = zip(range(count), itertools.cycle(urls), strict=False)
    headers = {"authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask() -> None:
            for _, url in turns:
                async with session.get(f"{url}/v1/models") as response:
                    await response.read()
                    answers[response.status] += 1

        began = time.monotonic()
        await asyncio.gather(*(ask() for _ in range(at_once)))
        return Rush(answers, time.monotonic() - began, len(urls))
