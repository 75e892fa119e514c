"""Arms: one way to run batch work beside waiting calls, for one window of time, and what both got of the engine.

A window's calls come at the arrivals and with the sizes of its round's seed, the same in every arm. Batch throughput
is read from the engine's own counters in every arm alike, less the calls that ended within the window.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, repeat
from typing import Any, Final

import aiohttp
from bench import counters, load
from bench.load import Call
from bench.paired import percentile
from bench.trace import Size, Trace

CALLS_FIRST: Final = 0
BATCH_LAST: Final = 10
MOST_SETTLING_SECONDS: Final = 45.0
_IDLE_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Plan:
    """What every window of a run shares."""

    trace: Trace
    writer: load.Writer
    scale: float
    rate: float
    seconds: float
    settle_seconds: float
    burst: int
    seed: int
    alike: Size | None = None
    """Every batch line has this size, as those of one template do; else lines have the trace's, too."""

    def arrivals(self, round: int) -> list[float]:
        """When the calls of this round come."""
        return self.trace.arrivals(self.seed + round, self.rate, self.seconds)

    def sizes(self, round: int, use: int) -> Iterator[Size]:
        """Sizes of this round's calls (use 0), lines (1) or burst (2)."""
        return self.trace.sizes(10_000 * self.seed + 10 * round + use, self.scale)

    def lines(self, round: int, **extra: Any) -> Iterator[tuple[Size, dict[str, Any]]]:
        """Batch requests without end."""
        for size in repeat(self.alike) if self.alike else self.sizes(round, 1):
            yield size, self.writer.chat(size, **extra)


@dataclass
class Window:
    """What one arm did in one window."""

    arm: str
    round: int
    calls: Sequence[Call]
    lines_per_second: float
    tokens_per_second: float
    """Input and output tokens of batch lines."""
    running: tuple[float, float]
    """Requests in the engine, waiting ones included, at the window's two ends: it never ran dry."""
    burst: Sequence[Call] = ()
    notes: dict[str, Any] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """For a file; calls as [TTFT, total, longest gap] in ms."""
        return {
            "arm": self.arm,
            "round": self.round,
            "lines_per_second": round(self.lines_per_second, 2),
            "tokens_per_second": round(self.tokens_per_second, 1),
            "running": self.running,
            "calls": [_shown(call) for call in self.calls],
            "burst": [_shown(call) for call in self.burst],
            "refused": sum(not call.ok for call in [*self.calls, *self.burst]),
        } | self.notes


def _shown(call: Call) -> list[float]:
    return [round(1000 * seconds, 1) for seconds in (call.first, call.total, max(call.gaps, default=0.0))]


def ttfts(calls: Sequence[Call]) -> list[float]:
    """Milliseconds to the first token, of calls that were answered."""
    return [1000 * call.first for call in calls if call.ok]


def gaps(calls: Sequence[Call]) -> list[float]:
    """Milliseconds between tokens, of calls that were answered."""
    return [1000 * gap for call in calls if call.ok for gap in call.gaps]


def p95(windows: Sequence[Window]) -> dict[str, float]:
    """TTFT and gaps of several windows together."""
    calls = [call for window in windows for call in window.calls]
    return {"ttft": percentile(ttfts(calls), 95), "itl": percentile(gaps(calls), 95)}


async def window(
    arm: str, round: int, plan: Plan, engine: aiohttp.ClientSession, caller: aiohttp.ClientSession, **extra: Any
) -> Window:
    """Measure one window of whatever is going on; `caller` is where calls are sent, `extra` is put into their bodies.

    Calls that are under way at its end are seen to theirs.
    """
    before = await counters.counts(engine)
    asked = asyncio.create_task(
        load.waiting_calls(
            caller, plan.arrivals(round), plan.sizes(round, 0), lambda size: plan.writer.chat(size, **extra)
        )
    )
    await asyncio.sleep(before.at + plan.seconds - time.monotonic())
    after = await counters.counts(engine)
    calls = await asked
    inside = [call for call in calls if call.ok and call.began + call.total <= after.at]
    seconds = after.at - before.at
    tokens = after.prompt_tokens + after.generation_tokens - before.prompt_tokens - before.generation_tokens
    tokens -= sum(call.size.prompt + call.size.answer for call in inside)
    return Window(
        arm,
        round,
        calls,
        (after.answered - before.answered - len(inside)) / seconds,
        tokens / seconds,
        (before.running + before.waiting, after.running + after.waiting),
    )


async def burst(round: int, plan: Plan, caller: aiohttp.ClientSession, **extra: Any) -> list[Call]:
    """Calls that come all at once."""
    bodies = [(size, plan.writer.chat(size, **extra)) for size in islice(plan.sizes(round, 2), plan.burst)]
    return list(await asyncio.gather(*(load.stream(caller, size, body) for size, body in bodies)))


async def naive(arm: str, round: int, plan: Plan, engine: aiohttp.ClientSession, in_flight: int) -> Window:
    """Batch and calls both straight to the engine, with its own priorities and so many batch requests in flight.

    None in flight is the engine without a batch.
    """
    async with load.pump(engine, in_flight, plan.lines(round, priority=BATCH_LAST)):
        await settle(plan, engine)
        found = await window(arm, round, plan, engine, engine, priority=CALLS_FIRST)
        found.burst = await burst(round, plan, engine, priority=CALLS_FIRST) if plan.burst else ()
    await idle(engine)
    return found


async def settle(plan: Plan, engine: aiohttp.ClientSession) -> None:
    """Return once a batch that has just begun is in all its stages: the first requests begin together, and the engine
    computes their prompts for a while, then only answers. So one whole set of them has to have come back."""
    first = await counters.counts(engine)
    await asyncio.sleep(plan.settle_seconds)
    while (now := await counters.counts(engine)).answered - first.answered < now.running + now.waiting:
        if now.at - first.at > plan.settle_seconds + MOST_SETTLING_SECONDS:
            return
        await asyncio.sleep(0.2)


async def idle(engine: aiohttp.ClientSession) -> None:
    """Return once nothing is in the engine."""
    end = time.monotonic() + _IDLE_SECONDS
    while (now := await counters.counts(engine)).running + now.waiting:
        if time.monotonic() > end:
            raise RuntimeError(f"{now.running + now.waiting:.0f} requests are still in the engine")
        await asyncio.sleep(0.1)


async def warm_up(plan: Plan, engine: aiohttp.ClientSession, requests: int) -> None:
    """The first few hundred requests after a start run at half speed; streams have first times of their own."""
    await load.closed_loop(engine, 64, islice(plan.lines(-1), requests))
    await burst(-1, plan, engine)
