"""The bare engine: vLLM as its users run it, without anything of ours around it; and what any engine counts itself."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import aiohttp

from penstock_worker.engine import kind as kinds
from penstock_worker.engine.launch_spec import without
from penstock_worker.engine.process.supervisor import EngineState, Supervisor
from penstock_worker.engine.vllm import idle_yield, step_time_slicing

_START_SECONDS: Final = 900.0
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


def as_it_comes(environment: Mapping[str, str]) -> dict[str, str]:
    """What an engine is started with that is not ours: its processes wait for each other as vLLM has them wait."""
    return {
        name: value
        for name, value in environment.items()
        if name not in (idle_yield.VARIABLE, step_time_slicing.VARIABLE)
    }


@contextmanager
def engine(
    name: str, source: str, folder: Path, arguments: Sequence[str], *, kind: str, seqs: int, say: Callable[[str], None]
) -> Iterator[Path]:
    """Start an engine with exactly so many sequences, scheduled by priority, with the flags that ours has otherwise.

    Gives its socket once it is ready; nothing of it is left afterwards.
    """
    socket = folder / "bare.sock"
    ours = kinds.launch(
        kind, model=name, source=source, socket=socket, arguments=arguments, environ=os.environ,
        python=os.environ.get("PENSTOCK_ENGINE_PYTHON", sys.executable),
    )  # fmt: skip
    command = list(ours.command)
    for ours_alone in ("--max-num-seqs", "--scheduling-policy", "--middleware"):
        command = without(command, ours_alone)
    command += ["--max-num-seqs", str(seqs), *(["--scheduling-policy", "priority"] if kind == "vllm" else [])]
    environment = as_it_comes(ours.environment)
    launch = replace(ours, command=tuple(command), environment=environment, batch_slots=seqs, engine_slots=seqs)
    began = time.monotonic()
    with Supervisor(launch, runtime_dir=folder, log_path=folder / "bare.log") as supervisor:
        while supervisor.state is not EngineState.READY:
            if supervisor.reason or time.monotonic() - began > _START_SECONDS:
                raise RuntimeError(supervisor.reason or "the bare engine was not ready in time")
            time.sleep(0.25)
        say(f"a bare {kind} with --max-num-seqs {seqs} is ready ({time.monotonic() - began:.0f} s)")
        yield socket
