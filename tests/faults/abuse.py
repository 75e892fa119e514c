"""One tenant, or nobody, that asks far too much, and a victim's few requests beside it, both seen by one clock.

What is counted does not depend on the machine's speed: how many of the abuser's requests are answered between a
victim's request and its answer. Who waits in one line with 256 others sees some 256; who has a turn of his own, few.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from e2e.live import CHAT
from faults.house import House

Ask = Callable[[aiohttp.ClientSession], Awaitable[aiohttp.ClientResponse]]
_MOST_REQUESTS = 4_000


@dataclass
class Beside:
    """What was seen."""

    victim: Counter[int] = field(default_factory=Counter)
    """How often which status came."""
    abuser: Counter[int] = field(default_factory=Counter)
    between: dict[str, list[int]] = field(default_factory=dict)
    """For each victim's request, by kind: the abuser's answers between it and its own."""

    def usual(self, kind: str) -> float:
        """The median of them."""
        return statistics.median(self.between[kind])

    def worst(self) -> float:
        """The largest median of any kind."""
        return max(map(self.usual, self.between))


def asks_call(text: str, **more: Any) -> Ask:
    """A waiting call."""
    body = {"model": "tiny", "max_tokens": 4, "messages": [{"role": "user", "content": text}], **more}
    return lambda session: session.post(CHAT, json=body)


def asks_job(text: str = "mine") -> Ask:
    """A job of one request."""
    body = {"model": "tiny", "max_tokens": 4, "messages": [{"role": "user", "content": text}]}
    return lambda session: session.post("/v1/jobs", json={"body": body})


def asks_page(path: str, **params: str) -> Ask:
    """Something to read."""
    return lambda session: session.get(path, params=params)


def wrong_keys() -> Ask:
    """Each another one."""
    numbers = itertools.count()
    return lambda session: session.get("/v1/jobs", headers={"authorization": f"Bearer sk-penstock-{next(numbers)}"})


@asynccontextmanager
async def session(house: House, tenant: str | None) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a tenant, or of nobody; as many connections as it wants."""
    headers = {} if tenant is None else {"authorization": f"Bearer {house.key_of(tenant)}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(house.url, headers=headers, connector=connector) as one:
        yield one


def beside(house: House, attack: Ask, at_once: int, probes: dict[str, Ask], **how: Any) -> Beside:
    """Probe in rounds while `abuser` asks so many at once, again and again; nothing is counted in the first round.

    `at_work` says from when on the abuser is; unless told, once it has its first answers.
    """
    return asyncio.run(_beside(house, attack, at_once, probes, **how))


async def _beside(
    house: House,
    attack: Ask,
    at_once: int,
    probes: dict[str, Ask],
    *,
    abuser: str | None,
    victim: str = "victim",
    rounds: int = 9,
    at_work: Callable[[Beside], bool] = lambda seen: seen.abuser.total() >= 5,
) -> Beside:
    seen = Beside(between={kind: [] for kind in probes})
    numbers = iter(range(_MOST_REQUESTS))
    async with session(house, abuser) as theirs, session(house, victim) as ours:

        async def again() -> None:
            for _ in numbers:
                async with await attack(theirs) as response:
                    await response.read()
                    seen.abuser[response.status] += 1

        crowd = [asyncio.create_task(again()) for _ in range(at_once)]
        try:
            await asyncio.to_thread(house.until, lambda: at_work(seen), "the abuser is at work")
            for number in range(rounds):
                for kind, ask in probes.items():
                    before = seen.abuser.total()
                    async with await ask(ours) as response:
                        await response.read()
                        seen.victim[response.status] += 1
                    if number:
                        seen.between[kind].append(seen.abuser.total() - before)
                    await asyncio.sleep(0.02)
            assert any(not one.done() for one in crowd), "the abuser had no more to ask: nothing was seen"
        finally:
            for one in crowd:
                one.cancel()
            await asyncio.gather(*crowd, return_exceptions=True)
    return seen
