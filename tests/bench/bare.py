"""The bare engine: vLLM as its users run it, without anything of ours around it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench import engine_python

from penstock_worker.engine import kind as kinds
from penstock_worker.engine.launch_spec import without
from penstock_worker.engine.process.supervisor import EngineState, Supervisor
from penstock_worker.engine.vllm import idle_yield, prefill_budget, step_time_slicing

_START_SECONDS: Final = 900.0


def as_it_comes(environment: Mapping[str, str]) -> dict[str, str]:
    """What an engine is started with that is not ours: its processes wait for each other as vLLM has them wait."""
    return {
        name: value
        for name, value in environment.items()
        if name not in (idle_yield.VARIABLE, step_time_slicing.VARIABLE, prefill_budget.VARIABLE)
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
        python=engine_python.python(),
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
