"""One tenant, or nobody, that asks too much of a platform: a process of its own, until it is told to end.

python -m bench.abuser KIND URL KEY BATCH        prints what it got, as JSON, at SIGTERM

jobs    one-line jobs, 64 at once          keys    wrong keys, each another one, 64 at once
lists   lists of 100 jobs, 256 at once     polls   1,000 long polls of one batch, again and again
calls   waiting calls, 256 at once         bodies  17 requests of 16 MiB that are sent slowly
burst   waiting calls, 1,000 at once       long    230 waiting calls that take ten minutes each
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import aiohttp
from bench.load import CHAT

KINDS: Final = {
    "jobs": 64,
    "keys": 64,
    "lists": 256,
    "polls": 1_000,
    "calls": 256,
    "bodies": 17,
    "burst": 1_000,
    "long": 230,
}
"""How many at once."""
_BODY: Final = {"model": "tiny", "max_tokens": 4, "messages": [{"role": "user", "content": "me first"}]}
_LONG: Final = _BODY | {"messages": [{"role": "user", "content": "me for long [[sleep 600000]]"}]}
_SLOW_BYTES: Final = 16 * 1024 * 1024 - 1024


async def _slow() -> AsyncIterator[bytes]:
    """A body that comes quickly until it takes much room, then byte by byte."""
    yield b'{"model":"tiny","messages":[{"role":"user","content":"' + b"x" * _SLOW_BYTES
    while True:
        await asyncio.sleep(1)
        yield b"x"


async def _attack(kind: str, url: str, key: str, batch: str) -> dict[str, int]:
    """Ask until told to end; how often which status came."""
    seen: Counter[str] = Counter()
    numbers, over = itertools.count(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    headers = {} if kind == "keys" else {"authorization": f"Bearer {key}"}

    async with aiohttp.ClientSession(url, headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:
        ask: dict[str, Callable[[], Awaitable[aiohttp.ClientResponse]]] = {
            "jobs": lambda: session.post("/v1/jobs", json={"body": _BODY}),
            "keys": lambda: session.get(f"/v1/batches/{batch}", headers={"authorization": f"Bearer {next(numbers)}"}),
            "lists": lambda: session.get("/v1/jobs", params={"limit": 100}),
            "polls": lambda: session.get(f"/v1/batches/{batch}", params={"wait": 60}),
            "calls": lambda: session.post(CHAT, json=_BODY),
            "bodies": lambda: session.post(CHAT, data=_slow()),
            "burst": lambda: session.post(CHAT, json=_BODY),
            "long": lambda: session.post(CHAT, json=_LONG),
        }

        async def again() -> None:
            while True:
                try:
                    response = await ask[kind]()
                    await response.read()
                    seen[str(response.status)] += 1
                    if response.status == 429:  # as a client does that reads what it is told
                        await asyncio.sleep(float(response.headers.get("retry-after", 1)))
                except (aiohttp.ClientError, OSError) as error:
                    seen[type(error).__name__] += 1
                    await asyncio.sleep(0.1)

        tasks = [asyncio.create_task(again()) for _ in range(KINDS[kind])]
        await over.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return dict(seen)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_attack(*sys.argv[1:5]))), flush=True)
