"""`make bench-batch`: whole files through the platform, against `vllm run-batch`'s own code on the same engine flags.

Files A to J are described in `batch_files.py`. A repeat runs one draw of a file on both sides, one after the other, in
an order that turns. Both engines live side by side, started before and warm, one of them busy at a time, with their
prefix caches reset before each run; all else of ours sleeps while theirs runs. Their clock runs around
`run_batch(engine_client, args)`, ours from the create of the batch to its completion; with upload and download it
stands beside it. E is compared with their run of C, F with our own run of A. B has engines of its own, whose KV cache
is small, and so have G and I, whose engines embed; they are measured if they are asked for.

It writes JSON after each repeat, so that an interruption loses nothing, and prints tables. It measures, and passes no
judgement: targets stand beside what came out. `--check` only compares answers, on engines in float32.
"""

from __future__ import annotations

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
    batch_options,
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
from bench.batch_files import EMBEDDINGS, EMBEDS, MODEL, ROWS, Maker
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
            _on(bench, folder / str(number), arguments, measure, url=EMBEDDINGS if arguments == EMBEDS else CHAT)
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
    given = batch_options.parsed(__doc__)
    found = result.begin(given)
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"  # vLLM's own way to reset its prefix cache over HTTP
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB, a million tokens of the tiny model
    writer = load.Writer(MODEL, seed=given.seed)
    sizes, scale = (trace.alike(given.line_size), 1.0) if given.line_size else (trace.of(given.trace), given.scale)
    maker = Maker(sizes, writer, scale, given.lines, given.seed, given.shared_prompts, bool(given.line_size))
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
