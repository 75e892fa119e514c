"""The first half of `make bench-run`: one file through both commands, cold and as a user calls them; the same answers?

`vllm run-batch` and `penstock run` get the same file and the same flags, one after the other, in float32 at temperature
0, since in bf16 a greedy answer can depend on what else is in the engine's step.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import batch_check, batch_files, engine_python, load, model, stop, trace
from bench.batch_files import MODEL, Maker

from penstock_worker.engine.vllm.vllm_server import environment

FLAGS = ("--dtype", "float32", "--max-num-seqs", "128", "--max-num-batched-tokens", "2048", "--enforce-eager")


def main() -> None:
    """Run both, compare, and say so; exits with 1 if an answer differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    maker = Maker(trace.of(None), load.Writer(MODEL, seed=given.seed), trace.SCALE, given.lines, given.seed)
    with tempfile.TemporaryDirectory(prefix="ps-run-") as name:
        folder = Path(name)
        source = model.source(None, folder)
        (folder / "in.jsonl").write_bytes(batch_files.jsonl(maker.bodies("D", 0)))
        theirs = [engine_python.python(), "-m", "vllm.entrypoints.openai.run_batch"]
        ours = [sys.executable, "-m", "penstock.cli.main", "run", "--data", "data"]
        answers = [
            _run(folder, "vllm run-batch", [*theirs, "--model", source, "--served-model-name", MODEL, *FLAGS], source),
            _run(folder, "penstock run", [*ours, "--model", source, "--served-model-name", MODEL, *FLAGS], source),
        ]
        expected, got = (batch_files.answers(one) for one in answers)
    found = batch_check.compared(expected, got)
    _say(f"{found['equal']} of {given.lines} lines have the same text, end and tokens; others: {found['differ']}")
    sys.exit(0 if found["equal"] == given.lines else 1)


def _run(folder: Path, name: str, command: list[str], source: str) -> bytes:
    output = folder / f"{name.split()[0]}.jsonl"
    began = time.monotonic()
    env = environment(os.environ, engine_python.on_cpu(), source) if name.startswith("vllm") else dict(os.environ)
    with (folder / "log").open("w+") as log:
        done = subprocess.run([*command, "-i", "in.jsonl", "-o", output], cwd=folder, env=env, stdout=log, stderr=log)
        if done.returncode:
            log.seek(0)
            raise SystemExit(f"{name} ended with {done.returncode}:\n{log.read()[-3000:]}")
    _say(f"{name}: {time.monotonic() - began:.0f} s, with its start")
    return output.read_bytes()


def _say(words: str) -> None:
    print(f"[bench] {words}", flush=True)


if __name__ == "__main__":
    stop.orderly(main)
