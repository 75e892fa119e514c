"""The bound: what the engine's own offline benchmark reaches, `vllm bench throughput`, with nothing between."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from bench import bare, engine_python, guarded
from bench.trace import Size

from penstock.stack.child import last_lines
from penstock_worker.engine import kind as kinds

_NEAR: Final = 0.8
"""Of the tokens that are asked for: prompts of random tokens come out a little shorter or longer."""


def measure(
    source: str,
    arguments: Sequence[str],
    size: Size,
    lines: int,
    warm_up: int,
    folder: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Prompts of random tokens, each line of this size; tokens (of prompts and answers) and requests a second."""
    python, output = engine_python.python(), folder / "offline.json"
    launch = kinds.launch(
        "vllm", model="offline", source=source, socket=folder / "offline.sock", arguments=arguments, environ=os.environ,
        python=python,
    )  # fmt: skip
    command = [
        python, "-m", "bench.vllm_api", "throughput", "--model", source, "--dataset-name", "random",
        # 0.32 takes `--input-len` without complaint, and then its own 1,024.
        "--random-input-len", str(size.prompt), "--random-output-len", str(size.answer), "--num-prompts", str(lines),
        "--num-warmups", str(warm_up), "--output-json", str(output), *arguments,
    ]  # fmt: skip
    environment = guarded.with_benchmarks(bare.as_it_comes(launch.environment))
    with guarded.running("offline", command, environment, folder) as process:
        while not process.ended(1.0):
            pass
    if not output.exists():
        raise RuntimeError(f"vllm bench throughput did not end well: {last_lines(process.log)}")
    told = json.loads(output.read_text())
    found = {name: told[name] for name in ("tokens_per_second", "requests_per_second", "total_num_tokens")}
    tokens = told["total_num_tokens"] / told["num_requests"]
    if not _NEAR * (size.prompt + size.answer) < tokens < (size.prompt + size.answer) / _NEAR:
        raise RuntimeError(f"vllm bench throughput ran lines of {tokens:.0f} tokens, not of {size}")
    say(f"offline: {found['tokens_per_second']:.0f} tokens/s, {found['requests_per_second']:.1f} requests/s")
    return found
