"""Counters: what an engine counts itself, read from its page of metrics.

It needs nothing of Penstock: `run_batch_server.py` reads them inside the engine's own interpreter.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import aiohttp

_SAMPLE: Final = re.compile(r"^(vllm:\w+)(?:\{([^}]*)\})? ([0-9.e+-]+)$", re.MULTILINE)
# How a request that was answered ends; others were aborted or refused.
_ANSWERED: Final = ('finished_reason="stop"', 'finished_reason="length"')


@dataclass(frozen=True)
class Counts:
    """What an engine has counted since its start, and when it said so (monotonic seconds)."""

    at: float
    answered: float
    prompt_tokens: float
    generation_tokens: float
    running: float
    waiting: float
    prefix_queries: float
    prefix_hits: float


async def counts(session: aiohttp.ClientSession) -> Counts:
    """Read the engine's metrics."""
    async with session.get("/metrics") as response:
        page = await response.text()
    return read(page, time.monotonic())


def read(page: str, at: float) -> Counts:
    """Read a page of metrics that was made at this moment; what is missing on it is 0."""
    sums: dict[str, float] = {}
    for name, labels, value in _SAMPLE.findall(page):
        if "finished_reason" in labels and not any(end in labels for end in _ANSWERED):
            continue
        sums[name] = sums.get(name, 0.0) + float(value)
    return Counts(
        at,
        sums.get("vllm:request_success_total", 0.0),
        sums.get("vllm:prompt_tokens_total", 0.0),
        sums.get("vllm:generation_tokens_total", 0.0),
        sums.get("vllm:num_requests_running", 0.0),
        sums.get("vllm:num_requests_waiting", 0.0),
        sums.get("vllm:prefix_cache_queries_total", 0.0),
        sums.get("vllm:prefix_cache_hits_total", 0.0),
    )
