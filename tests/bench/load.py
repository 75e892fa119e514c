"""Load: callers that ask as clients do, and measure what a client sees.

One asyncio loop and aiohttp's client, about 0.5 ms of processor time a request: OpenAI's SDK needs several times that
and would distort what is measured on two cores. Both sides of every comparison are asked by the same code.

TTFT is the time to the first event of a stream (vLLM sends it together with the first token). A gap is the time
between two later events, which are one token each unless the server's front end lags and joins some.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Final

import aiohttp
from bench.trace import Size

from penstock_worker.engine import tiny

CHAT: Final = "/v1/chat/completions"
_WORDS: Final = tuple(f"{tiny.NOUNS} {tiny.VERBS} {tiny.ADJECTIVES}".split())
_CALL_SECONDS: Final = 300.0
_EVENT: Final = b"data: {"
_BROKEN: Final = b'data: {"error"'
_serials = count(1)


@dataclass(frozen=True)
class Call:
    """One request as its caller saw it; times in seconds, `began` by the monotonic clock."""

    size: Size
    began: float
    status: int
    first: float
    """To the first event; of an answer that is not streamed, to its end."""
    total: float
    gaps: tuple[float, ...] = ()
    events: int = 0

    @property
    def ok(self) -> bool:
        """Answered whole."""
        return self.status == 200


@dataclass(frozen=True)
class Target:
    """Where requests go: an engine's own socket, or an address with a key."""

    name: str
    url: str = "http://engine"
    socket: Path | None = None
    key: str | None = None

    @asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """A pool of connections without a limit."""
        connector: aiohttp.BaseConnector
        if self.socket is not None:
            connector = aiohttp.UnixConnector(str(self.socket), limit=0, keepalive_timeout=60)
        else:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {self.key}"} if self.key else {})
        async with aiohttp.ClientSession(
            self.url, connector=connector, headers=headers, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=_CALL_SECONDS),
        ) as session:  # fmt: skip
            yield session


@dataclass
class Writer:
    """Writes bodies of given sizes. No two prompts begin alike, so that no prefix cache helps anybody."""

    model: str
    tokens_per_word: float = 1.5
    seed: int = 1
    _chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    def text(self, tokens: int) -> str:
        """About so many tokens."""
        words = self._chance.choices(_WORDS, k=max(1, round(tokens / self.tokens_per_word)))
        return f"{next(_serials)} {' '.join(words)}"

    def chat(self, size: Size, **extra: Any) -> dict[str, Any]:
        """A chat request that is answered with exactly so many tokens."""
        message = {"role": "user", "content": self.text(size.prompt)}
        asked = {"model": self.model, "messages": [message], "max_tokens": size.answer, "temperature": 0}
        # Random weights end their answers at random otherwise.
        return asked | {"ignore_eos": True} | extra


async def stream(session: aiohttp.ClientSession, size: Size, body: dict[str, Any]) -> Call:
    """Ask for a stream, and take the time of its events."""
    data = json.dumps(body | {"stream": True}).encode()
    began = time.monotonic()
    times: list[float] = []
    status, tail = 0, b""
    try:
        async with session.post(CHAT, data=data) as response:
            status = response.status
            async for piece in response.content.iter_any():
                now = time.monotonic()
                tail += piece
                *events, tail = tail.split(b"\n\n")
                times += [now for event in events if event.startswith(_EVENT)]
                if any(event.startswith(_BROKEN) for event in events):
                    status = 599
    except (aiohttp.ClientError, TimeoutError, OSError):
        status = 599
    ended = time.monotonic()
    if not times and status == 200:
        status = 599
    # The first two come together: the role, and the first token.
    gaps = tuple(later - earlier for earlier, later in pairwise(times[1:]))
    return Call(size, began, status, (times[0] if times else ended) - began, ended - began, gaps, len(times))


async def ask(session: aiohttp.ClientSession, size: Size, body: dict[str, Any], endpoint: str = CHAT) -> Call:
    """Ask for a whole answer."""
    data = json.dumps(body).encode()
    began = time.monotonic()
    status = 599
    try:
        async with session.post(endpoint, data=data) as response:
            await response.read()
            status = response.status
    except (aiohttp.ClientError, TimeoutError, OSError):
        pass
    took = time.monotonic() - began
    return Call(size, began, status, took, took)


Bodies = Iterator[tuple[Size, dict[str, Any]]]
GrantedApi = Callable[[aiohttp.ClientSession, Size, dict[str, Any]], Awaitable[Call]]


async def closed_loop(
    session: aiohttp.ClientSession, callers: int, bodies: Bodies, how: GrantedApi = ask, done: list[Call] | None = None
) -> list[Call]:
    """So many callers, each asking again as soon as it was answered, until there are no more bodies.

    Raises if one is refused: refusals would look very fast.
    """
    ended = [] if done is None else done

    async def caller() -> None:
        for size, body in bodies:
            ended.append(await how(session, size, body))
            if not ended[-1].ok:
                raise RuntimeError(f"a request was answered {ended[-1].status}")

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    return ended


@asynccontextmanager
async def pump(session: aiohttp.ClientSession, in_flight: int, bodies: Bodies) -> AsyncIterator[list[Call]]:
    """Keep so many requests in the engine; at the end those in flight are given up, which makes vLLM abort them."""
    done: list[Call] = []
    task = asyncio.create_task(closed_loop(session, in_flight, bodies, done=done))
    try:
        yield done
        if task.done():
            await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def waiting_calls(
    session: aiohttp.ClientSession, arrivals: Sequence[float], sizes: Iterator[Size], write: Callable[[Size], dict]
) -> list[Call]:
    """Send a streaming call at each arrival, whatever became of those before, and see all of them to their ends."""
    began = time.monotonic()
    calls = []
    for arrival, size in zip(arrivals, sizes, strict=False):
        body = write(size)
        await asyncio.sleep(began + arrival - time.monotonic())
        calls.append(asyncio.create_task(stream(session, size, body)))
    return list(await asyncio.gather(*calls))


async def tokens_per_word(session: aiohttp.ClientSession, model: str) -> float:
    """Ask the engine how many tokens its tokenizer makes of a word here."""
    words = random.Random(0).choices(_WORDS, k=2_000)
    async with session.post("/tokenize", json={"model": model, "prompt": " ".join(words)}) as response:
        return float((await response.json())["count"]) / len(words)
