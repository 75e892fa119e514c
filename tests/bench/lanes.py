"""`make bench-lanes`: waiting calls beside batch work that never runs dry, on the real vLLM, and small jobs behind.

    (a) none        calls alone
    (b) naive n     batch and calls straight to the engine with its own priorities, n batch requests in flight
        bare n      the same on a vLLM of its own that was started as users start it, without room above max_num_seqs
    (c) ours        both through the platform, with reserved slots only
    … n, long       (b) and (c) once more with batch answers so long that a slot rarely falls free by itself
    (d) ours, SLO   with an objective between what 32 and 112 in flight give; then the best fixed n that holds it
    (e) burst       calls that come all at once, at the end of each window
    (f) against     (c) on a second platform with other settings, in turns with the first (`--against NAME=VALUE …`)

Rounds run every arm once, in an order that the seed shuffles, with the same arrivals and sizes in each. One vLLM
serves all arms but the bare ones and (f); straight to it means its own socket, while the platform has nothing to do.
It writes JSON after each window, and prints tables at the end. It measures, and passes no judgement: targets stand
beside what came out.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import aiohttp
from bench import (
    arms,
    bare,
    engine_python,
    lanes_report,
    load,
    model,
    objective,
    ours,
    result,
    small_job,
    stop,
    trace,
)
from bench.arms import Plan, Window
from bench.lanes_run import Bench

PARTS: Final = ("bare", "lanes", "long", "slo", "jobs")
LONG: Final = lanes_report.LONG


async def bare_engine(bench: Bench, socket: Path) -> None:
    """Arms on an engine that knows nothing of us."""
    async with load.Target("bare", socket=socket).session() as engine:
        await _know(bench, engine)
        for round in bench.rounds(bench.given.rounds):
            for n in bench.given.bare_in_flight:
                await bench.arm(f"bare {n}", round, arms.naive(f"bare {n}", round, bench.plan, engine, n))
        if "long" in bench.given.parts:
            n = bench.given.bare_seqs
            for round in bench.rounds(bench.given.long_rounds):
                arm = f"bare {n}{LONG}"
                await bench.arm(arm, round, arms.naive(arm, round, bench.long, engine, n))


async def _know(bench: Bench, engine: aiohttp.ClientSession) -> None:
    bench.plan.writer.tokens_per_word = await load.tokens_per_word(engine, bench.plan.writer.model)
    await arms.warm_up(bench.plan, engine, bench.given.warm_up)


@dataclass(frozen=True)
class Side:
    """A platform that is measured, and the sessions to it."""

    ours: ours.Ours
    engine: aiohttp.ClientSession
    """To its engine's own socket."""
    api: aiohttp.ClientSession


@asynccontextmanager
async def _side(bench: Bench, platform: ours.Ours) -> AsyncIterator[Side]:
    """Sessions to a platform, which is warm."""
    async with platform.engine.session() as engine, platform.api.session() as api, ours.tended(platform.running):
        await _know(bench, engine)
        await arms.burst(-2, bench.plan, api)  # its roads are warm, too
        yield Side(platform, engine, api)


async def platform(bench: Bench, platforms: Mapping[str, ours.Ours]) -> None:
    """All that is measured on the platform and its engine, and on the one of (f), each by its arm."""
    async with AsyncExitStack() as stack:
        sides = {arm: await stack.enter_async_context(_side(bench, one)) for arm, one in platforms.items()}
        side = sides["ours"]
        if "lanes" in bench.given.parts:
            await _rounds(bench, sides)
        if "long" in bench.given.parts:
            for round in bench.rounds(bench.given.long_rounds):
                arm = f"ours{LONG}"
                await bench.arm(arm, round, reserve_only(bench, side, round, bench.long, arm))
        if "slo" in bench.given.parts:
            for kind in bench.given.slo:
                bench.objectives.append(await objective.measure(bench, side.ours, side.engine, side.api, kind))
                bench.write()
        if "jobs" in bench.given.parts:
            wish = small_job.Wish(behind=bench.given.behind, repeats=bench.given.repeats)
            # So short that 50 lines are a small job: one whose lines come back with it.
            short = replace(bench.plan, scale=min(bench.plan.scale, small_job.SCALE))
            bench.jobs = await small_job.measure(wish, short, side.ours, side.engine, bench.say)


async def _rounds(bench: Bench, sides: Mapping[str, Side]) -> None:
    naive = {"none": 0} | {f"naive {n}": n for n in bench.given.in_flight}
    for round in bench.rounds(bench.given.rounds):
        for arm in bench.order([*naive, *sides], round):
            if arm in sides:
                await bench.arm(arm, round, reserve_only(bench, sides[arm], round, bench.plan, arm))
            else:
                await bench.arm(arm, round, arms.naive(arm, round, bench.plan, sides["ours"].engine, naive[arm]))


async def reserve_only(bench: Bench, side: Side, round: int, plan: Plan, arm: str) -> Window:
    """Both through the platform, which has no objective to keep."""
    count = bench.lines_for(plan.seconds + plan.settle_seconds + arms.MOST_SETTLING_SECONDS)
    file = await asyncio.to_thread(side.ours.upload, ours.lines(plan, round, count))
    async with side.ours.batch(file, "standard", side.engine) as id:
        await arms.settle(plan, side.engine)
        found = await ours.window(arm, round, plan, side.ours, side.engine, side.api, id)
        found.burst = await arms.burst(round, plan, side.api) if plan.burst else ()
    return found


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure (all)")
    parser.add_argument("--trace", type=Path, help="CSV of a trace (else sizes from its quantiles, Poisson arrivals)")
    parser.add_argument("--scale", type=float, default=trace.SCALE, help="tokens of the trace times this")
    parser.add_argument(
        "--lines", type=trace.Size.parse, metavar="PROMPTxANSWER",
        help="batch lines of one size, as a template's are: they run in step (else the trace's sizes, too)",
    )  # fmt: skip
    parser.add_argument("--rate", type=float, default=4.0, help="waiting calls a second")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=0, help="then begin no other round of a part (0: no end)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of one window")
    parser.add_argument("--settle-seconds", type=float, default=4.0, help="from an arm's start to its window, at least")
    parser.add_argument("--burst", type=int, default=20, help="calls at once after a window")
    parser.add_argument(
        "--against", type=_setting, nargs="+", default=[], metavar="NAME=VALUE",
        help="settings of a second platform, in turns with the first: PENSTOCK_STEADY_REFILL=off",
    )  # fmt: skip
    parser.add_argument("--in-flight", type=int, nargs="*", default=[32, 64, 112, 128, 144, 256])
    parser.add_argument("--bare-seqs", type=int, default=128, help="--max-num-seqs of the bare vLLM")
    parser.add_argument("--bare-in-flight", type=int, nargs="+", default=[128])
    parser.add_argument("--long-lines", type=trace.Size.parse, metavar="PROMPTxANSWER", default=trace.Size(137, 512))
    parser.add_argument("--long-rounds", type=int, default=2)
    parser.add_argument("--slo", nargs="+", choices=objective.KINDS, default=["itl"], help="objectives, in turn")
    parser.add_argument("--converge-seconds", type=float, default=60.0, help="for the line budget to settle")
    parser.add_argument("--behind", type=int, default=20_000, help="lines of the large batch")
    parser.add_argument("--repeats", type=int, default=4, help="of the small job in each situation")
    parser.add_argument("--model", type=Path, help="folder of a model (else `tiny`, whose name it gets)")
    parser.add_argument("--warm-up", type=int, default=600, help="requests")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", default="vllm", help="echo: only to try the benchmark itself")
    parser.add_argument("--engine-arg", action="append", default=[], help="given to both engines")
    parser.add_argument("--json", type=Path, default=Path("data/bench-lanes.json"))
    given = parser.parse_args()
    if given.engine == "vllm":
        given.engine_arg += engine_python.dtype_arguments(given.engine_arg)
    given.against_arm = " ".join(["ours", *(f"{name}={value}" for name, value in given.against)])
    return given


def _setting(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name.startswith("PENSTOCK_"):
        raise argparse.ArgumentTypeError(f"{text!r} is no PENSTOCK_NAME=VALUE")
    return name, value


def _measure(bench: Bench, folder: Path) -> None:
    """One engine after the other: two at once would share what is measured."""
    given = bench.given
    source = model.source(given.model, folder) if given.engine == "vllm" else None
    if "bare" in given.parts:
        with bare.engine(
            "tiny", source or "", folder, given.engine_arg, kind=given.engine, seqs=given.bare_seqs, say=bench.say
        ) as socket:
            asyncio.run(bare_engine(bench, socket))
    if set(given.parts) - {"bare"}:
        start = partial(ours.platform, engine=given.engine, arguments=given.engine_arg, source=source, say=bench.say)
        with ExitStack() as stack:
            platforms = {"ours": stack.enter_context(start(folder / "data"))}
            if given.against:
                against = start(folder / "against", settings=dict(given.against))
                platforms[given.against_arm] = stack.enter_context(against)
            asyncio.run(platform(bench, platforms))


def main() -> None:
    """Measure every part that is asked for, print and write what came out."""
    given = parsed()
    head = result.begin(given)
    writer = load.Writer("tiny", seed=given.seed)
    plan = Plan(
        trace.of(given.trace), writer, given.scale, given.rate, given.seconds, given.settle_seconds, given.burst,
        given.seed, given.lines,
    )  # fmt: skip
    bench = Bench(given, plan, head)
    folder = Path(tempfile.mkdtemp(prefix="ps-bench-"))
    try:
        _measure(bench, folder)
    finally:  # What was measured is kept and shown, whatever became of the rest.
        shutil.rmtree(folder, ignore_errors=True)
        bench.write()
        lanes_report.show(bench.found())
    bench.say(f"{bench.found()['seconds']} s in all; {given.json}")


if __name__ == "__main__":
    stop.orderly(main)
