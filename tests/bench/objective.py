"""An objective: a latency that waiting calls are promised, what the line budget makes of it, and the best fixed budget.

The target lies between what the least and the middle of the fixed budgets gave in this run (32 and 112 in flight), at
their geometric mean. The fixed budget that is compared is the one with the most lines/s among those whose p95 held
the target in the rounds, sent straight to the engine, measured again directly after ours with the same arrivals.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from bench import arms, load, ours, paired
from bench.arms import Window

if TYPE_CHECKING:
    from bench.lanes_run import Bench

KINDS: Final = ("ttft", "itl")
LEAST, MIDDLE = 32, 112
_FIRST_ROUND: Final = 100


async def measure(
    bench: Bench, platform: ours.Ours, engine: aiohttp.ClientSession, api: aiohttp.ClientSession, kind: str
) -> dict[str, Any]:
    """Set the objective, let the line budget settle, measure, and compare."""
    rounds = range(_FIRST_ROUND, _FIRST_ROUND + bench.given.rounds)
    for n in (LEAST, MIDDLE):
        if not bench.of(f"naive {n}"):
            bench.keep(await arms.naive(f"naive {n}", 0, bench.plan, engine, n))
    low, high = (arms.p95(bench.of(f"naive {n}"))[kind] for n in (LEAST, MIDDLE))
    target = max(1, round(math.sqrt(low * high)))
    bench.say(f"objective: {kind} p95 ≤ {target} ms ({LEAST} in flight gave {low:.0f}, {MIDDLE} gave {high:.0f})")
    await asyncio.to_thread(platform.cli, "models", "slo", platform.running.model, f"--{kind}-p95-ms", str(target))
    try:
        path, found = await _ours(bench, platform, engine, api, f"ours, {kind} ≤ {target}", rounds)
    finally:
        await asyncio.to_thread(platform.cli, "models", "slo", platform.running.model, f"--{kind}-p95-ms", "0")
    best = _best_fixed(bench, kind, target)
    fixed = []
    if best is not None:
        arm = f"fixed {best}, {kind} ≤ {target}"
        fixed = [await arms.naive(arm, round, bench.plan, engine, best) for round in rounds]
    for window in fixed:
        bench.keep(window)
    return _result(kind, target, (low, high), found, best, fixed) | {"budget_path": path}


async def _ours(
    bench: Bench,
    platform: ours.Ours,
    engine: aiohttp.ClientSession,
    api: aiohttp.ClientSession,
    arm: str,
    rounds: range,
) -> tuple[list[list[Any]], list[Window]]:
    """The budget's way to where it stays, one look a second, and the windows there."""
    plan, seconds = bench.plan, float(bench.given.converge_seconds)
    count = bench.lines_for(seconds + len(rounds) * (plan.seconds + 2))
    file = await asyncio.to_thread(platform.upload, ours.lines(plan, rounds[0], count))
    found = []
    async with platform.batch(file, "standard", engine) as id, asyncio.TaskGroup() as group:
        watching = group.create_task(_watch(platform))
        # The line budget sees calls only when there are some.
        learning = plan.trace.arrivals(plan.seed + rounds[0] - 1, plan.rate, seconds)
        await load.waiting_calls(api, learning, plan.sizes(rounds[0] - 1, 0), plan.writer.chat)
        for round in rounds:
            found.append(await ours.window(arm, round, plan, platform, engine, api, id))
            bench.keep(found[-1])
        watching.cancel()
    return watching_path(watching), found


async def _watch(platform: ours.Ours) -> list[list[Any]]:
    path: list[list[Any]] = []
    began = time.monotonic()
    try:
        while True:
            if ingress := await asyncio.to_thread(platform.ingress):
                path.append([round(time.monotonic() - began, 1), ingress.load.budget, ingress.load.reason])
            await asyncio.sleep(1.0)
    except asyncio.CancelledError:
        return path


def watching_path(task: asyncio.Task[list[list[Any]]]) -> list[list[Any]]:
    """What a cancelled watcher had seen."""
    return task.result() if not task.cancelled() else []


def _best_fixed(bench: Bench, kind: str, target: float) -> int | None:
    """The fixed budget with the most lines/s among those that held the target in the rounds."""
    holding = {
        n: paired.median([window.lines_per_second for window in windows]).value
        for n in bench.given.in_flight
        if (windows := bench.of(f"naive {n}")) and arms.p95(windows)[kind] <= target
    }
    return max(holding, key=lambda n: holding[n], default=None)


def _result(
    kind: str, target: int, between: tuple[float, float], ours_: Sequence[Window], best: int | None, fixed: list[Window]
) -> dict[str, Any]:
    got = arms.p95(ours_)[kind]
    pairs = list(zip(fixed, ours_, strict=False))
    return {
        "kind": kind,
        "target_ms": target,
        "between_ms": [round(value, 1) for value in between],
        "ours_p95_ms": round(got, 1),
        "ours_p95_over_target": round(got / target, 3),
        "best_fixed": best,
        "fixed_p95_ms": round(arms.p95(fixed)[kind], 1) if fixed else None,
        "lines_ratio": paired.ratios([(f.lines_per_second, o.lines_per_second) for f, o in pairs]).json(),
        "tokens_ratio": paired.ratios([(f.tokens_per_second, o.tokens_per_second) for f, o in pairs]).json(),
    }
