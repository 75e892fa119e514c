"""Theirs: the code of `vllm run-batch` itself, called again and again on one engine that stays.

A process of its own (`python -m bench.theirs SOCKET FLAGS…`) starts the engine as `vllm run-batch` does and answers
one question a line on a unix socket. A run is `run_batch(engine_client, args)`, all of it: reading, asking, writing.
The prefix cache is reset before each.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import bare
from bench.occupancy import Load, watched

from penstock.stack.child import Child, last_lines
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
    socket, log = folder / "theirs.sock", folder / "theirs.log"
    socket.unlink(missing_ok=True)
    launch = kinds.launch(
        "vllm", model=name, source=source, socket=socket, arguments=arguments, environ=os.environ, python=sys.executable
    )
    environment = bare.as_it_comes(launch.environment)
    command = [sys.executable, "-m", "bench.theirs", str(socket), "--model", source, "--served-model-name", name]
    began = time.monotonic()
    with Child("theirs", [*command, *arguments], log=log, environment=environment, grace_seconds=20) as child:

        def ready() -> Theirs:
            while not socket.exists():
                if child.pid is None or time.monotonic() - began > _START_SECONDS:
                    raise RuntimeError(f"vllm run-batch did not start: {last_lines(log)}")
                time.sleep(0.25)
            say(f"vllm run-batch is ready ({time.monotonic() - began:.0f} s)")
            return Theirs(socket, child.pid or 0, say)

        yield ready


def flags(arguments: Sequence[str], on_cpu: bool) -> list[str]:
    """The flags of both sides: compiling for a CPU takes minutes and wins little, so neither does."""
    return [*without(arguments, "--enforce-eager"), *(["--enforce-eager"] if on_cpu else [])]


async def _serve(socket: Path, args: Namespace) -> None:
    from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
    from vllm.usage.usage_lib import UsageContext

    async with build_async_engine_client(args, usage_context=UsageContext.OPENAI_BATCH_RUNNER) as engine:

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            args.input_file, args.output_file = json.loads(await reader.readline())
            try:
                told = await _timed(engine, args)
            except Exception as error:
                told = {"error": repr(error)}
            writer.write(json.dumps(told).encode() + b"\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_unix_server(answer, str(socket))
        await server.serve_forever()


async def _timed(engine: Any, args: Namespace) -> dict[str, Any]:
    from prometheus_client import REGISTRY, generate_latest
    from vllm.entrypoints.launchers.run_batch import run_batch

    async def look() -> bare.Counts:
        return bare.read(generate_latest(REGISTRY).decode(), time.monotonic())

    if not await engine.reset_prefix_cache():
        raise RuntimeError("the prefix cache could not be reset")
    async with watched(look) as load:
        began = time.monotonic()
        await run_batch(engine, args)
        seconds = time.monotonic() - began
    return {"seconds": seconds, "load": load.json()}


def main(arguments: list[str]) -> None:
    """Start the engine and answer until told to end."""
    from vllm.entrypoints.launchers.run_batch import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    socket, *given = arguments
    args = make_arg_parser(FlexibleArgumentParser()).parse_args([*given, "-i", "-", "-o", "-"])
    asyncio.run(_serve(Path(socket), args))


if __name__ == "__main__":
    main(sys.argv[1:])
