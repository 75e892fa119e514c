"""`make bench-batch`: whole files through the platform, against `vllm run-batch`'s own code on the same engine flags.

Files A to G are described in `batch_files.py`. A repeat runs one draw of a file on both sides, one after the other, in
an order that turns. Both engines live side by side, started before and warm, one of them busy at a time, with their
prefix caches reset before each run; all else of ours sleeps while theirs runs. Their clock runs around
`run_batch(engine_client, args)`, ours from the create of the batch to its completion; with upload and download it
stands beside it. E is compared with their run of C, F with our own run of A. B has engines of its own, whose KV cache
is small, and so has G, whose engines embed; it is measured if it is asked for.

It writes JSON after each repeat, so that an interruption loses nothing, and prints tables. It measures, and passes no
judgement: targets stand beside what came out. `--check` only compares answers, on engines in float32.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench import (
    batch_check,
    batch_files,
    batch_report,
    engine_python,
    load,
    model,
    offline,
    ours,
    result,
    stop,
    theirs,
    trace,
)
from bench.batch_files import MODEL, ROWS, Maker
from bench.batch_ours import Side
from bench.batch_run import LOSSES, Bench, Sides
from bench.load import CHAT
from bench.processes import cpu_seconds, family
from bench.theirs import Theirs

from penstock.stack.problem import Problem
from penstock_worker.engine.launch_spec import without

FLOAT32: Final = ("--dtype", "float32")
_IDLE_SECONDS: Final = 5.0


@contextmanager
def sides(bench: Bench, folder: Path, arguments: tuple[str, ...]) -> Iterator[tuple[ours.Ours, Theirs | None]]:
    """Both engines with these flags besides those that were given, each with its own front."""
    given = bench.given
    on_cpu = given.engine != "vllm" or engine_python.on_cpu()
    wanted = [*given.engine_arg, *_unless_given(arguments, given.engine_arg)]
    flags = theirs.flags(wanted, on_cpu) if given.engine == "vllm" else list(given.engine_arg)
    bench.found.setdefault("flags", []).append(" ".join(flags))
    folder.mkdir()
    source = model.source(given.model, folder.parent) if given.engine == "vllm" else None
    both = given.engine == "vllm" and not given.only_ours
    starting = theirs.starting(MODEL, source or "", folder, flags, bench.say) if both else nullcontext(None)
    with starting as ready:
        if ready and not on_cpu:  # each takes its part of the card by what it finds free there
            ready()
        with ours.platform(
            folder / "data", engine=given.engine, arguments=flags, source=source, say=bench.say
        ) as running:
            yield running, ready() if ready else None


def _unless_given(arguments: Sequence[str], given: Sequence[str]) -> list[str]:
    """A row's own flags, but for those that the caller chose otherwise."""
    left = list(arguments)
    for argument in given:
        if argument.startswith("--"):
            left = without(left, argument.partition("=")[0].replace("_", "-"))
    return left


def _on(
    bench: Bench,
    folder: Path,
    arguments: tuple[str, ...],
    measure: Callable[[Sides], Any],
    *,
    url: str = CHAT,
    warm: bool = True,
) -> None:
    """Measure on engines that live only for it."""

    async def all_of_it(platform: ours.Ours, other: Theirs | None) -> None:
        async with platform.engine.session() as engine, platform.api.session() as api, ours.tended(platform.running):
            side = Side(platform, api, engine, has_prefix_cache=bench.given.engine == "vllm", url=url)
            both = Sides(bench, side, other, folder)
            if warm:
                await both.warm_up()
            bench.found.setdefault("idle_cores", []).append(await _idle_cores(platform, other))
            await measure(both)

    with sides(bench, folder, arguments) as (platform, other):
        asyncio.run(all_of_it(platform, other))


async def _idle_cores(platform: ours.Ours, other: Theirs | None) -> dict[str, float]:
    """How much of a core each side takes while it has nothing to do: what the other one's runs lose to it."""
    roots = {"ours": [child.pid for child in platform.running.children], "theirs": [other.pid] if other else []}
    before = {whose: _cpu_seconds(pids) for whose, pids in roots.items()}
    await asyncio.sleep(_IDLE_SECONDS)
    return {whose: round((_cpu_seconds(pids) - before[whose]) / _IDLE_SECONDS, 3) for whose, pids in roots.items()}


def _cpu_seconds(pids: list[int | None]) -> float:
    return sum(cpu_seconds(one) for pid in pids if pid is not None for one in family(pid))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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


def _measure(bench: Bench, folder: Path) -> None:
    """The rows, grouped by their engines: two pairs of engines at once would not fit every machine."""
    asked = list(dict.fromkeys(bench.given.files))
    if bench.given.check:
        _on(bench, folder / "check", FLOAT32, batch_check.measure, warm=False)
        return
    begun = 0
    own = {"B": batch_files.small_cache(bench.given.shared_prompts, bench.given.cache_block)}
    if bench.given.offline:
        _offline(bench, folder / "offline")
    flags = {name: own.get(name, ROWS[name].engine_args) for name in asked}
    for number, arguments in enumerate(dict.fromkeys(flags.values())):
        names = [name for name in asked if flags[name] == arguments]
        begun += len(names)
        measure = partial(Sides.rows, names=names, share=begun / len(asked))
        try:
            _on(bench, folder / str(number), arguments, measure, url=ROWS[names[0]].url)
        except* (*LOSSES, Problem) as group:  # the other engines may do better
            for error in group.exceptions:
                bench.lose(", ".join(names), error)


def _offline(bench: Bench, folder: Path) -> None:
    """The engine's own offline throughput with the same flags; if it has none, the rows are measured all the same."""
    given = bench.given
    if given.engine != "vllm":
        bench.found["offline"] = {"why": "the simulated engine has no offline throughput"}
        return
    folder.mkdir()
    try:
        bench.found["offline"] = offline.measure(
            model.source(given.model, folder.parent), theirs.flags(given.engine_arg, engine_python.on_cpu()),
            given.line_size, given.lines, given.warm_up, folder, bench.say,
        )  # fmt: skip
    except RuntimeError as error:
        bench.lose("offline", error)


def main() -> None:
    """Measure every row that is asked for, print and write what came out."""
    given = parsed()
    found = result.begin(given)
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"  # vLLM's own way to reset its prefix cache over HTTP
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB, a million tokens of the tiny model
    writer = load.Writer(MODEL, seed=given.seed)
    sizes, scale = (trace.alike(given.line_size), 1.0) if given.line_size else (trace.of(given.trace), given.scale)
    maker = Maker(sizes, writer, scale, given.lines, given.seed, given.shared_prompts)
    bench = Bench(given, maker, found | {"trace": maker.trace.source})
    folder = Path(tempfile.mkdtemp(prefix="ps-bench-"))
    try:
        _measure(bench, folder)
    finally:  # What was measured is kept, whatever became of the rest.
        shutil.rmtree(folder, ignore_errors=True)
        bench.write()
        batch_report.show(bench.found)
    bench.say(f"{bench.found['seconds']} s in all; {given.json}")


if __name__ == "__main__":
    stop.orderly(main)
