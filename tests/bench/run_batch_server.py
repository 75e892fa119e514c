"""The code of `vllm run-batch` on one engine that stays: one file a question, on a unix socket.

`python -m bench.run_batch_server SOCKET FLAGS…` runs in the engine's interpreter, which need not have Penstock. It
starts the engine as `vllm run-batch` does; a run is `run_batch(engine_client, args)`, all of it: reading, asking,
writing. The prefix cache is reset before each.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from bench import counters, vllm_api
from bench.occupancy import watched


async def _serve(socket: Path, args: Namespace) -> None:
    build, context = vllm_api.get("build_async_engine_client"), vllm_api.get("UsageContext")
    async with build(args, usage_context=context.OPENAI_BATCH_RUNNER) as engine:

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            args.input_file, args.output_file = json.loads(await reader.readline())
            try:
                told = await _timed(engine, args)
            except Exception as error:  # whoever asked is told; the engine stays for the next file
                told = {"error": repr(error)}
            writer.write(json.dumps(told).encode() + b"\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_unix_server(answer, str(socket))
        await server.serve_forever()


async def _timed(engine: Any, args: Namespace) -> dict[str, Any]:
    from prometheus_client import REGISTRY, generate_latest

    async def look() -> counters.Counts:
        return counters.read(generate_latest(REGISTRY).decode(), time.monotonic())

    run_batch = vllm_api.get("run_batch")
    if not await engine.reset_prefix_cache():
        raise RuntimeError("the prefix cache could not be reset")
    async with watched(look) as load:
        began = time.monotonic()
        await run_batch(engine, args)
        seconds = time.monotonic() - began
    return {"seconds": seconds, "load": load.json()}


def main(arguments: list[str]) -> None:
    """Start the engine and answer until told to end."""
    socket, *given = arguments
    parser = vllm_api.get("make_arg_parser")(vllm_api.get("FlexibleArgumentParser")())
    asyncio.run(_serve(Path(socket), parser.parse_args([*given, "-i", "-", "-o", "-"])))


if __name__ == "__main__":
    main(sys.argv[1:])
