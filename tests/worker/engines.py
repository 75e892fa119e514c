"""What the tests of engines share: launches, waiting for a process's end, and a worker to kill."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock_worker.engine import kind
from penstock_worker.engine.launch_spec import Launch
from penstock_worker.engine.process.guard import Process, look_up
from penstock_worker.engine.process.supervisor import EngineState, Supervisor


@contextlib.contextmanager
def echo_engine(folder: Path) -> Iterator[Supervisor]:
    """An echo engine that is ready, under its supervisor."""
    with Supervisor(echo_launch(folder), runtime_dir=folder, log_path=folder / "engine.log") as supervisor:
        wait_ready(supervisor, 30)
        yield supervisor


class EngineNotReadyError(Exception):
    """No engine is ready; says why."""


WORKER_LIKE = Path(__file__).with_name("worker_like.py")


def echo_launch(folder: Path, *arguments: str) -> Launch:
    """The echo engine with its socket in this folder."""
    return kind.launch(
        "echo",
        model="echo",
        source="",
        socket=folder / "e.sock",
        arguments=arguments,
        environ=os.environ,
        python=sys.executable,
    )


def wait_ready(supervisor: Supervisor, timeout_seconds: float, generation: int = 1) -> int:
    """Wait until an engine of at least this generation is ready; its generation."""
    deadline = time.monotonic() + timeout_seconds
    while supervisor.state is not EngineState.STOPPED and time.monotonic() < deadline:
        now = supervisor.generation
        if supervisor.state is EngineState.READY and now == supervisor.generation >= generation:
            return now
        time.sleep(0.01)
    raise EngineNotReadyError(f"{supervisor.state}, start {supervisor.generation}: {supervisor.reason}")


def is_alive(supervisor: Supervisor, timeout_seconds: float = 2.0) -> bool:
    """Ask for a health probe that begins now."""
    return asyncio.run(supervisor.lives(timeout_seconds=timeout_seconds))


def engine_pid(supervisor: Supervisor) -> int:
    """The engine's first process; the guard is before it."""
    return supervisor.processes[1].pid


def ended(process: Process, timeout_seconds: float = 5.0) -> bool:
    """Wait for the end of exactly this process."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(process.pid)
        try:
            now = look_up(process.pid)
            if now is None or now.started_ticks != process.started_ticks:
                return True
            return bool(select.select([handle], [], [], timeout_seconds)[0])
        finally:
            os.close(handle)
    return True


@dataclass(frozen=True)
class Worker:
    """A worker-like process, the engine's processes under it, and a child that has nothing to do with them."""

    process: subprocess.Popen[str]
    engine: tuple[Process, ...]
    bystander: Process


@contextlib.contextmanager
def worker_like(engine: str, model: str, source: str, folder: Path, *arguments: str) -> Iterator[Worker]:
    """Start one and wait until its engine is ready; whatever happens, nothing of it is left."""
    command = [sys.executable, str(WORKER_LIKE), engine, model, source, str(folder), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    bystander = None
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line, (folder / "engine.log").read_text()[-3000:]
        said = json.loads(line)
        bystander = look_up(said["bystander"])
        assert bystander
        family = tuple(found for pid in said["engine"] if (found := look_up(pid)))
        yield Worker(process, family, bystander)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        if bystander:
            with contextlib.suppress(ProcessLookupError):
                os.kill(bystander.pid, signal.SIGKILL)
