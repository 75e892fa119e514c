"""One-line jobs: how many `POST /v1/jobs` one API process takes a second, and how soon all are answered."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import aiohttp

CALLERS = 16


def percentile(seconds: list[float], part: float) -> float:
    """The nearest rank, in milliseconds."""
    return round(1000 * sorted(seconds)[min(len(seconds) - 1, int(part * len(seconds)))], 1)


async def _post(url: str, key: str, bodies: list[bytes]) -> tuple[list[str], list[float], float]:
    ids: list[str] = []
    took: list[float] = []
    waiting = iter(bodies)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}

    async def call(session: aiohttp.ClientSession) -> None:
        for body in waiting:
            began = time.monotonic()
            async with session.post(f"{url}/v1/jobs", data=body) as answer:
                assert answer.status == 200, await answer.text()
                ids.append((await answer.json())["id"])
            took.append(time.monotonic() - began)

    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=CALLERS)) as session:
        began = time.monotonic()
        await asyncio.gather(*(call(session) for _ in range(CALLERS)))
        return ids, took, time.monotonic() - began


def measure(url: str, key: str, count: int, left: Callable[[], int], *, model: str) -> dict[str, float]:
    """Post so many one-line jobs from 16 callers, and wait until `left()` (jobs that have not ended) is 0."""
    bodies = [
        json.dumps(
            {"body": {"model": model, "max_tokens": 16, "messages": [{"role": "user", "content": f"job {number}"}]}}
        ).encode()
        for number in range(count)
    ]
    began = time.monotonic()
    ids, took, posting_seconds = asyncio.run(_post(url, key, bodies))
    assert len(set(ids)) == count, "a job is missing"
    while left():
        time.sleep(0.1)
    seconds = time.monotonic() - began
    return {
        "jobs": count,
        "callers": CALLERS,
        "posts_per_second": round(count / posting_seconds, 1),
        "post_p50_ms": percentile(took, 0.5),
        "post_p99_ms": percentile(took, 0.99),
        "seconds": round(seconds, 2),
        "lines_per_second": round(count / seconds, 1),
    }
