"""Theirs: the code of `vllm run-batch` itself, called again and again on one engine that stays.

The engine's process is `run_batch_server.py`, under a guard; this side starts it and asks it to run files.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import bare, engine_python, guarded
from bench.occupancy import Load

from penstock.stack.child import last_lines
from penstock_worker.engine import kind as kinds
from penstock_worker.engine.launch_spec import without

_START_SECONDS: Final = 900.0
_RUN_SECONDS: Final = 3_600.0


@dataclass(frozen=True)
class Theirs:
    """A `vllm run-batch` whose engine is up."""

    socket: Path
    pid: int
    say: Callable[[str], None]

    async def run(self, file: Path, output: Path) -> tuple[float, Load]:
        """Run one file; how many seconds it took, and what the engine did meanwhile."""
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        try:
            writer.write(json.dumps([str(file), str(output)]).encode() + b"\n")
            line = await asyncio.wait_for(reader.readline(), _RUN_SECONDS)
        finally:
            writer.close()
        told = json.loads(line or b'{"error": "it ended"}')
        if "error" in told:
            raise RuntimeError(f"vllm run-batch: {told['error']}")
        return float(told["seconds"]), Load(**told["load"])


@contextmanager
def starting(
    name: str, source: str, folder: Path, arguments: Sequence[str], say: Callable[[str], None]
) -> Iterator[Callable[[], Theirs]]:
    """Start it with the flags that ours is started with; gives what waits until it is ready. Nothing is left of it."""
    socket, python = folder / "theirs.sock", engine_python.python()
    launch = kinds.launch(
        "vllm", model=name, source=source, socket=socket, arguments=arguments, environ=os.environ, python=python
    )
    environment = guarded.with_benchmarks(bare.as_it_comes(launch.environment))
    command = [python, "-m", "bench.run_batch_server", str(socket), "--model", source, "--served-model-name", name]
    began = time.monotonic()
    with guarded.running("theirs", [*command, *arguments], environment, folder) as process:

        def ready() -> Theirs:
            while not socket.exists():
                if process.ended(0.25) or time.monotonic() - began > _START_SECONDS:
                    raise RuntimeError(f"vllm run-batch did not start: {last_lines(process.log)}")
            say(f"vllm run-batch is ready ({time.monotonic() - began:.0f} s)")
            return Theirs(socket, process.pid, say)

        yield ready


def flags(arguments: Sequence[str], on_cpu: bool) -> list[str]:
    """The flags of both sides: compiling for a CPU takes minutes and wins little, so neither does."""
    return [*without(arguments, "--enforce-eager"), *(["--enforce-eager"] if on_cpu else [])]
