"""The command line of `make bench-batch`."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import batch_files, engine_python, trace
from bench.batch_files import ROWS


def parsed(description: str | None) -> argparse.Namespace:
    """What was asked for, with what follows from it."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--files", nargs="+", choices=list(ROWS), default=list("ABCDEF"), help="what to measure (A to F)"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--lines", type=int, default=2_000, help="of each file")
    parser.add_argument("--minutes", type=float, default=0, help="then begin no other repeat (0: no end)")
    parser.add_argument("--trace", type=Path, help="CSV of a trace (else sizes from its quantiles)")
    parser.add_argument("--scale", type=float, default=trace.SCALE, help="tokens of the trace times this")
    parser.add_argument(
        "--line-size", type=trace.Size.parse, metavar="PROMPTxANSWER",
        help="of all lines but B's, instead of the trace's (D: answers of a quarter, or five times as long)",
    )  # fmt: skip
    parser.add_argument("--model", type=Path, help="folder of a model (else `tiny`, whose name it gets)")
    parser.add_argument("--shared-prompts", type=int, default=batch_files.PROMPTS, help="of B, and its cache with them")
    parser.add_argument("--cache-block", type=int, default=128, help="tokens in a block of B's cache")
    parser.add_argument("--warm-up", type=int, default=600, help="lines of a file before times are taken")
    parser.add_argument("--warm-up-files", type=int, default=2, help="how many such files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--off", action="store_true", help="B, C and D once more on ours without what they are about")
    parser.add_argument("--check", action="store_true", help="only compare answers, with everything on and off")
    parser.add_argument("--check-lines", type=int, default=200)
    parser.add_argument(
        "--offline", action="store_true", help="`vllm bench throughput` before, with lines of --line-size"
    )
    parser.add_argument("--only-ours", action="store_true", help="without vllm run-batch")
    parser.add_argument("--engine", default="vllm", help="echo: only to try the benchmark itself, without run-batch")
    parser.add_argument(
        "--engine-arg", action="append", default=[],
        help="given to both engines (--max-num-seqs 128 --max-num-batched-tokens 2048 unless told otherwise); "
        "what a row adds can be chosen, too",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, default=Path("data/bench-batch.json"))
    given = parser.parse_args()
    if given.offline and not given.line_size:
        parser.error("--offline needs --line-size")
    if given.engine == "vllm":  # What vLLM chooses on a CPU; said, so that both sides have the same everywhere.
        for name, value in (("--max-num-seqs", "128"), ("--max-num-batched-tokens", "2048")):
            if not any(one.split("=")[0] == name for one in given.engine_arg):
                given.engine_arg += [name, value]
        given.engine_arg += engine_python.dtype_arguments(given.engine_arg)
    return given
