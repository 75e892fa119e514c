"""A small job behind a large one: from POST to results, alone, beside a large batch of another tenant, and urgent.

The large batch is in the same lane (`standard`) first; then it is `flex`, holds every hand that flex may hold, and the
small job has lane `priority`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import aiohttp
from bench import ours, paired
from bench.arms import Plan
from bench.load import CHAT, Target

SMALL_TENANT: Final = "small"
SCALE: Final = 0.25
"""Of the trace's lengths, at most, in both jobs."""
_WAIT_SECONDS: Final = 60


@dataclass(frozen=True)
class Wish:
    """How large the two are, and how often the small one is sent in each situation."""

    lines: int = 50
    behind: int = 20_000
    repeats: int = 4


async def measure(
    wish: Wish, plan: Plan, platform: ours.Ours, engine: aiohttp.ClientSession, say: Callable[[str], None]
) -> dict[str, Any]:
    """Seconds of each repeat, and their ratios to the job's time alone before and after."""
    key = await asyncio.to_thread(platform.key, SMALL_TENANT)
    say(f"uploading {wish.behind} lines for the large batch")
    file = await asyncio.to_thread(platform.upload, ours.lines(plan, 900, wish.behind))
    seconds: dict[str, list[float]] = {"alone": [], "standard": [], "priority": []}
    async with Target("small", url=platform.running.url, key=key).session() as sender:

        async def send(situation: str, lane: str) -> None:
            for repeat in range(wish.repeats):
                seconds[situation].append(await _job(sender, plan, 910 + repeat, lane, wish.lines))
                say(f"small job, {situation}: {seconds[situation][-1]:.2f} s")

        await _job(sender, plan, 909, "standard", wish.lines)  # the first one finds its roads cold
        await send("alone", "standard")
        async with platform.batch(file, "standard", engine):
            await asyncio.sleep(plan.settle_seconds)
            await send("standard", "standard")
        async with platform.batch(file, "flex", engine):
            await asyncio.sleep(plan.settle_seconds)
            await send("priority", "priority")
        await send("alone", "standard")
    ratios = {
        situation: paired.ratio_of_medians(seconds[situation], seconds["alone"]).json()
        for situation in ("standard", "priority")
    }
    return {"lines": wish.lines, "behind": wish.behind, "seconds": seconds, "ratio_to_alone": ratios}


async def _job(sender: aiohttp.ClientSession, plan: Plan, round: int, lane: str, lines: int) -> float:
    """Seconds from the POST to the results; the lines' sizes are the round's."""
    requests = [{"body": body} for _, body in islice(plan.lines(round), lines)]
    began = time.monotonic()
    async with sender.post("/v1/jobs", json={"endpoint": CHAT, "lane": lane, "requests": requests}) as response:
        response.raise_for_status()
        job = await response.json()
    while job["status"] not in ours.ENDED:
        async with sender.get(f"/v1/jobs/{job['id']}", params={"wait": _WAIT_SECONDS}) as response:
            response.raise_for_status()
            job = await response.json()
    took = time.monotonic() - began
    counts = job["request_counts"]
    if job["status"] != "completed" or counts["completed"] != lines or len(job["results"]) != lines:
        raise RuntimeError(f"the small job ended {job['status']} with {counts}")
    return took
