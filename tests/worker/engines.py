"""What the tests of engines share: launches, waiting for a process's end, and a worker to kill."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock_worker.engine import kind
from penstock_worker.engine.launch_spec import Launch
from penstock_worker.engine.process.guard import Process, look_up

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
