"""How long an engine takes to start, and, where it has a sleep mode, to sleep and to wake; and what memory it holds.

`python -m bench.start`, on vLLM as its users run it. A start is cold as to the process; what earlier starts left on
disk (compiled kernels, files in the page cache) is there, and the result says whether vLLM compiled anything. Sleep is
vLLM's level 1: the weights go to the machine's memory, the KV cache is forgotten. Memory is the first card's if there
is one, less what it held before; else that of the engine's processes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil
from bench import bare, engine_python, guarded, load, model, result, stop
from bench.gpu import machine
from bench.trace import Size

_SEQS: Final = 128
_SLEEP_SECONDS: Final = 120.0


def say(words: str) -> None:
    """Tell whoever waits."""
    print(f"[bench] {words}", flush=True)


def compiled() -> set[Path]:
    """What vLLM has compiled and keeps: a folder for each graph of each model, with its flags."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "vllm")
    kept = Path(os.environ.get("VLLM_CACHE_ROOT") or cache).expanduser() / "torch_compile_cache"
    return {*kept.glob("*"), *kept.glob("*/*")}


def compiling(before: set[Path], after: set[Path]) -> str:
    """What a start had compiled anew, in words."""
    if after - before:
        return "it compiled anew"
    return "compiled by an earlier start, or nothing to compile" if before else "nothing compiled was kept"


def no_sleep_mode(kind: str) -> str:
    """Why this engine has no sleep mode; empty if it has one. Raises RuntimeError if it can't be asked."""
    if kind != "vllm":
        return "the simulated engine has no sleep mode"
    if engine_python.on_cpu():
        return "vLLM has no sleep mode on CPUs"
    command = [engine_python.python(), "-m", "bench.vllm_api", "sleep"]
    environment = guarded.with_benchmarks(os.environ)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    match done.stdout.split()[-1:]:
        case ["True"] if not done.returncode:
            return ""
        case ["False"] if not done.returncode:
            return "vLLM has no sleep mode here"
    said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
    raise RuntimeError(f"vLLM does not say whether it has a sleep mode: {said[-1].strip()}")


def memory_mib() -> float:
    """What the first card holds, or else all descendants of this process together."""
    if not engine_python.on_cpu() and (cards := machine.cards()):
        return float(cards[0].used_mib)
    held = 0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            held += process.memory_full_info().pss
    return held / 1_048_576


async def _answer(engine: aiohttp.ClientSession, writer: load.Writer) -> None:
    call = await load.ask(engine, Size(8, 1), writer.chat(Size(8, 1)))
    if not call.ok:
        raise RuntimeError(f"the engine answered {call.status}")


async def started(socket: Path, began: float, before_mib: float) -> dict[str, Any]:
    """The first answer of an engine that has just become ready."""
    ready = time.monotonic() - began
    async with load.Target("bare", socket=socket).session() as engine:
        await _answer(engine, load.Writer("tiny"))
    seconds = time.monotonic() - began
    return {"ready_seconds": ready, "seconds": seconds, "memory_mib": memory_mib() - before_mib}


async def slept(socket: Path, before_mib: float) -> dict[str, Any]:
    """An engine that answers is put to sleep, and woken."""
    async with load.Target("bare", socket=socket).session() as engine:
        began = time.monotonic()
        await _posted(engine, "/sleep?level=1")
        await _until(engine, sleeping=True)
        seconds, asleep_mib, woken = time.monotonic() - began, memory_mib() - before_mib, time.monotonic()
        await _posted(engine, "/wake_up")
        await _until(engine, sleeping=False)
        await _answer(engine, load.Writer("tiny"))
        wake_seconds = time.monotonic() - woken
    return {
        "seconds": seconds,
        "memory_mib": asleep_mib,
        "wake_seconds": wake_seconds,
        "awake_mib": memory_mib() - before_mib,
    }


async def _posted(engine: aiohttp.ClientSession, path: str) -> None:
    async with engine.post(path) as response:
        response.raise_for_status()


async def _until(engine: aiohttp.ClientSession, *, sleeping: bool) -> None:
    end = time.monotonic() + _SLEEP_SECONDS
    while time.monotonic() < end:
        async with engine.get("/is_sleeping") as response:
            if (await response.json())["is_sleeping"] is sleeping:
                return
        await asyncio.sleep(0.05)
    raise TimeoutError(f"the engine was not {'asleep' if sleeping else 'awake'} in time")


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a model (else `tiny`)")
    parser.add_argument("--engine", default="vllm", help="echo: only to try the benchmark itself")
    parser.add_argument("--engine-arg", action="append", default=[], help="given to the engine")
    parser.add_argument("--json", type=Path, default=Path("data/bench-start.json"))
    given = parser.parse_args()
    if given.engine == "vllm":
        given.engine_arg += engine_python.dtype_arguments(given.engine_arg)
    return given


def main() -> None:
    """Measure, print, write."""
    given = parsed()
    found = result.begin(given)
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"  # vLLM's endpoints for sleep and wake
    folder = Path(tempfile.mkdtemp(prefix="ps-bench-"))
    try:
        source = model.source(given.model, folder) if given.engine == "vllm" else ""
        try:
            why = no_sleep_mode(given.engine)
        except RuntimeError as error:  # how long a start takes can be said all the same
            found["lost"], why = {"sleep": str(error)}, ""
            say(f"sleep is lost: {error}")
        sleeps = not why and "lost" not in found
        arguments = [*given.engine_arg, *(["--enable-sleep-mode"] if sleeps else [])]
        before, before_mib, began = compiled(), memory_mib(), time.monotonic()
        with bare.engine("tiny", source, folder, arguments, kind=given.engine, seqs=_SEQS, say=say) as socket:
            found["start"] = asyncio.run(started(socket, began, before_mib))
            found["start"]["compiled"] = compiling(before, compiled())
            say(f"start: {found['start']}")
            if "lost" not in found:
                found["sleep"] = {"why": why} if why else asyncio.run(slept(socket, before_mib))
                say(f"sleep: {found['sleep']}")
    finally:  # What was measured is kept, whatever became of the rest.
        shutil.rmtree(folder, ignore_errors=True)
        result.write(given.json, found)
    say(str(given.json))


if __name__ == "__main__":
    stop.orderly(main)
