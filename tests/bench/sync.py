"""`make bench-sync`: what the path of a waiting call costs: API, router, ingress and gate, against the engine itself.

Four parts, each on a platform of its own:

- **latency**, on the real vLLM: streamed calls, straight to the engine's socket and through the path, in turns within
  one run, one caller and eight. A repeat is one block each way, in an order that the seed draws, with the same sizes;
  the difference of their medians is one paired difference.
- **rate**, on the simulated echo engine, which costs next to nothing: requests/s of one API process, callers that ask
  again as soon as they were answered, streamed or not; and the processor time that each process spends on a request,
  which says what is left when the machine has more cores;
- **packs**, on the real vLLM: embeddings of short texts, packed and not (`sync_packs.py`);
- **idle**: `idle_streams.py`, a thousand silent streaming clients of one API process.

It prints tables and writes JSON, which has each number of callers of **latency** as soon as that is measured.
It measures, and passes no judgement.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil
from bench import batch_files, engine_python, load, model, ours, paired, result, stop, sync_packs, sync_report, trace
from bench.arms import Plan, warm_up
from bench.paired import Estimate
from bench.processes import cpu_seconds
from bench.trace import Size

PARTS: Final = ("latency", "rate", "packs", "idle")
LEAST_REPEATS: Final = 3
_HOWS: Final = {"whole": load.ask, "streamed": load.stream}


def say(words: str) -> None:
    """Tell whoever waits."""
    print(f"[bench] {words}", flush=True)


async def latency(
    given: argparse.Namespace, plan: Plan, platform: ours.Ours, began: float, keep: Callable[[dict[str, Any]], None]
) -> None:
    """Paired blocks straight and through the path, for each number of callers; what each found is kept at once."""
    async with platform.engine.session() as engine, platform.api.session() as api, ours.tended(platform.running):
        plan.writer.tokens_per_word = await load.tokens_per_word(engine, plan.writer.model)
        await warm_up(plan, engine, given.warm_up)
        await in_turns(given, plan, {"direct": engine, "path": api}, began, keep)


async def in_turns(
    given: argparse.Namespace,
    plan: Plan,
    roads: Mapping[str, aiohttp.ClientSession],
    began: float,
    keep: Callable[[dict[str, Any]], None],
) -> None:
    """Both roads in turns. The numbers of callers share what is left of `--minutes`, which count from `began`."""
    now = time.monotonic()
    left = max(0.0, began + 60 * given.minutes - now)
    for number, callers in enumerate(given.callers):
        end = now + left * (number + 1) / len(given.callers)
        each, repeats = (1, given.repeats) if callers == 1 else (3, max(8, given.repeats // 5))
        for road in reversed(roads.values()):  # each connection is open before its time is taken
            await _block(road, plan, callers, each)
        calls: dict[str, list[list[load.Call]]] = {road: [] for road in roads}
        for turn in range(repeats):
            if turn >= LEAST_REPEATS and given.minutes and time.monotonic() > end:
                break
            for name in random.Random(given.seed * 10_000 + turn).sample(list(roads), 2):
                calls[name].append(await _block(roads[name], plan, callers, each))
        found = _compared(callers, calls)
        keep(found)
        say(f"{callers} callers: the path adds {Estimate(**found['ttft_ms']['added']).text(2)} ms to TTFT")


async def _block(session: aiohttp.ClientSession, plan: Plan, callers: int, each: int) -> list[load.Call]:
    size = plan.alike or Size(137, 32)
    bodies = ((size, plan.writer.chat(size)) for _ in range(callers * each))
    return await load.closed_loop(session, callers, bodies, load.stream)


def _compared(callers: int, calls: dict[str, list[list[load.Call]]]) -> dict[str, Any]:
    """Percentiles of each road over all calls, and what the path adds by block, in ms."""
    found: dict[str, Any] = {"callers": callers, "repeats": len(calls["direct"])}
    for name, of in (("ttft_ms", lambda call: 1000 * call.first), ("total_ms", lambda call: 1000 * call.total)):
        found[name] = {
            road: {f"p{percent}": paired.percentile([of(call) for block in blocks for call in block], percent)
                   for percent in (50, 95, 99)}
            for road, blocks in calls.items()
        }  # fmt: skip
        medians = {road: [paired.percentile([of(c) for c in block], 50) for block in calls[road]] for road in calls}
        both = list(zip(medians["direct"], medians["path"], strict=True))
        found[name]["added"] = paired.differences(both).json()
    return found


async def rate(given: argparse.Namespace, plan: Plan, platform: ours.Ours) -> list[dict[str, Any]]:
    """Requests/s straight and through the path, in turns, for each number of callers and kind of answer."""
    found = []
    async with platform.engine.session() as engine, platform.api.session() as api, ours.tended(platform.running):
        for kind in _HOWS:
            for callers in given.rate_callers:
                for session in (engine, api):
                    await _rate(session, plan, callers, kind, 1.0)
                runs: dict[str, list[float]] = {"direct": [], "path": []}
                spent: list[dict[str, float]] = []
                for _ in range(given.rate_repeats):
                    runs["direct"].append(await _rate(engine, plan, callers, kind, given.rate_seconds))
                    began = _cpu_seconds(platform)
                    runs["path"].append(await _rate(api, plan, callers, kind, given.rate_seconds))
                    asked = runs["path"][-1] * given.rate_seconds
                    spent.append({name: 1000 * (now - began.get(name, 0.0)) / asked
                                  for name, now in _cpu_seconds(platform).items()})  # fmt: skip
                found.append(
                    {
                        "answers": kind,
                        "callers": callers,
                        "direct_per_second": paired.median(runs["direct"]).json(),
                        "path_per_second": paired.median(runs["path"]).json(),
                        "cpu_ms_per_request": {
                            name: round(paired.median([one.get(name, 0.0) for one in spent]).value, 3)
                            for name in spent[0]
                        },
                    }
                )
                say(f"{callers} callers, {kind}: {paired.median(runs['path']).text(0)} requests/s")
    return found


async def _rate(session: aiohttp.ClientSession, plan: Plan, callers: int, kind: str, seconds: float) -> float:
    """Requests that were answered, a second; those under way at the end are seen to theirs."""
    size = Size(137, 32)
    # One body for all: writing them would cost more than the path. The echo engine knows no prefix cache.
    body = plan.writer.chat(size)
    end = time.monotonic() + seconds

    def until_the_end() -> Any:
        for pair in repeat((size, body)):
            if time.monotonic() >= end:
                return
            yield pair

    began = time.monotonic()
    done = await load.closed_loop(session, callers, until_the_end(), _HOWS[kind])
    return len(done) / (time.monotonic() - began)


def _cpu_seconds(platform: ours.Ours) -> dict[str, float]:
    """Processor time so far of this process, and of each child of the platform that a call passes."""
    spent = {"caller": cpu_seconds(psutil.Process())}
    for child in platform.running.children:
        if child.name in ("api", "gpu") and child.pid is not None:
            process = psutil.Process(child.pid)
            spent["worker" if child.name == "gpu" else child.name] = cpu_seconds(process)
            if child.name == "gpu":
                spent["engine"] = sum(cpu_seconds(one) for one in process.children(recursive=True))
    return spent


def idle_streams(seconds: float) -> dict[str, Any]:
    """What a thousand idle streams cost one API process: a program of its own, on a house of its own."""
    say("idle streams")
    command = [sys.executable, "-m", "bench.idle_streams", "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = done.stdout[done.stdout.find("{") :]
    found: dict[str, Any] = json.loads(told) if told.startswith("{") else {}
    if done.returncode:  # It judges: what it says belongs to what it found.
        said = [line for line in done.stderr.splitlines() if "Error" in line]
        found["failed"] = said[-1] if said else f"status {done.returncode}"
    return found


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure (all)")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=150, help="pairs with one caller; with more, a fifth of it")
    parser.add_argument("--rate-callers", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--rate-seconds", type=float, default=2.0)
    parser.add_argument("--rate-repeats", type=int, default=3)
    parser.add_argument("--packs-callers", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--packs-seconds", type=float, default=4.0, help="of each arm in a round")
    parser.add_argument("--packs-rounds", type=int, default=5)
    parser.add_argument("--idle-seconds", type=float, default=15.0, help="that idle streams stand still")
    parser.add_argument("--minutes", type=float, default=0, help="then no more of latency's pairs, but 3 (0: no end)")
    parser.add_argument("--warm-up", type=int, default=600, help="requests")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", default="vllm", help="of the latency part; echo: only to try the benchmark itself")
    parser.add_argument("--model", type=Path, help="folder of a model for it (else `tiny`, whose name it gets)")
    parser.add_argument("--engine-arg", action="append", default=[], help="given to that engine")
    parser.add_argument("--json", type=Path, default=Path("data/bench-sync.json"))
    given = parser.parse_args()
    if given.engine == "vllm":
        given.engine_arg += engine_python.dtype_arguments(given.engine_arg)
    return given


def _on(
    folder: Path, engine: str, arguments: Sequence[str], source: str | None, measure: Callable[[ours.Ours], Any]
) -> Any:
    """Measure on a platform that lives only for it."""
    with ours.platform(folder / engine, engine=engine, arguments=arguments, source=source, say=say) as platform:
        return asyncio.run(measure(platform))


def main() -> None:
    """Measure every part that is asked for, print and write what came out."""
    given = parsed()
    began = time.monotonic()
    found = result.begin(given)
    writer = load.Writer("tiny", seed=given.seed)
    plan = Plan(trace.synthetic(), writer, trace.SCALE, 1.0, 1.0, 0.0, 20, given.seed)
    folder = Path(tempfile.mkdtemp(prefix="ps-bench-"))

    def keep(row: dict[str, Any]) -> None:
        found.setdefault("latency", []).append(row)
        result.write(given.json, found)

    try:
        if "latency" in given.parts:
            source = model.source(given.model, folder) if given.engine == "vllm" else None
            arguments = given.engine_arg
            _on(folder, given.engine, arguments, source, lambda on: latency(given, plan, on, began, keep))
        if "rate" in given.parts:
            found["rate"] = _on(folder / "rate", "echo", (), None, lambda on: rate(given, plan, on))
        if "packs" in given.parts:
            source = model.source(given.model, folder) if given.engine == "vllm" else None
            arguments = [*given.engine_arg, *(batch_files.EMBEDS if given.engine == "vllm" else ())]
            each = given.packs_callers, given.packs_seconds, given.packs_rounds
            found["packs"] = _on(
                folder / "packs", given.engine, arguments, source, lambda on: sync_packs.measure(plan, on, *each, say)
            )
        if "idle" in given.parts:
            found["idle_streams"] = idle_streams(given.idle_seconds)
    finally:  # What was measured is kept, whatever became of the rest.
        shutil.rmtree(folder, ignore_errors=True)
        found["seconds"] = round(time.monotonic() - began)
        result.write(given.json, found)
    sync_report.show(found)
    say(f"{found['seconds']} s in all; {given.json}")


if __name__ == "__main__":
    stop.orderly(main)
