"""`make bench-batch`: whole files through the platform, against `vllm run-batch`'s own code on the same engine flags.

Files A to F are described in `batch_files.py`. A repeat runs one draw of a file on both sides, one after the other, in
an order that turns. Both engines live side by side, started before and warm, one of them busy at a time, with their
prefix caches reset before each run; all else of ours sleeps while theirs runs. Their clock runs around
`run_batch(engine_client, args)`, ours from the create of the batch to its completion; with upload and download it
stands beside it. E is compared with their run of C, F with our own run of A. B has engines of its own, whose KV cache
is small.

It prints a table and writes JSON after each repeat, so that an interruption loses nothing. It measures, and passes no
judgement: targets stand beside what came out. `--check` only compares answers, on engines in float32.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
from bench import batch_check, batch_files, batch_report, load, ours, result, theirs, trace
from bench.batch_files import ROWS, Maker
from bench.batch_ours import Done, Refused, Side
from bench.theirs import Theirs

MODEL: Final = "tiny"
SCALE: Final = 0.4
FLOAT32: Final = ("--dtype", "float32")
CACHED: Final = {"cache": {"mode": "on"}}
"""What a create says so that answers come from the shared cache, and go there."""
_IDLE_SECONDS: Final = 5.0


@dataclass
class Bench:
    """What was asked for, and what was found so far."""

    given: argparse.Namespace
    maker: Maker
    found: dict[str, Any]
    began: float = field(default_factory=time.monotonic)
    pairs: list[dict[str, Any]] = field(default_factory=list)

    def say(self, words: str) -> None:
        """Tell whoever waits."""
        print(f"[bench] {words}", flush=True)

    def keep(self, row: str, repeat: int, ours_: Done | None, theirs_: Done | None, **more: Any) -> None:
        """Take a repeat in, and write all that was found so far."""
        sides = {"ours": ours_.json() if ours_ else None, "theirs": theirs_.json() if theirs_ else None}
        self.pairs.append({"row": row, "repeat": repeat} | sides | more)
        self.say(batch_report.line(self.pairs[-1]))
        self.write()

    def write(self) -> None:
        """Write the file anew."""
        self.found["seconds"] = round(time.monotonic() - self.began)
        self.found["table"] = batch_report.table(self.pairs)
        self.found["pairs"] = self.pairs
        result.write(self.given.json, self.found)

    def side(self, row: str, repeat: int, whose: str) -> Done | None:
        """What was measured of a row before."""
        for pair in self.pairs:
            if (pair["row"], pair["repeat"]) == (row, repeat) and pair[whose]:
                return Done.read(pair[whose])
        return None

    def repeats(self) -> Iterator[int]:
        """The repeats of a row; a row that began is measured at least once, then until the time is over."""
        for repeat in range(self.given.repeats):
            if repeat and self.given.minutes and time.monotonic() - self.began > 60 * self.given.minutes:
                self.say(f"{self.given.minutes:g} minutes are over after {repeat} repeats of this row")
                return
            yield repeat


@dataclass
class Sides:
    """Both sides on engines with the same flags, and a folder for files."""

    bench: Bench
    ours: Side
    theirs: Theirs | None
    folder: Path
    cached: bytes = b""
    """The file of E: its answers are in the cache."""

    async def run_theirs(self, data: bytes) -> tuple[Done, bytes] | None:
        """Run a file with `vllm run-batch`'s code; None if that side is left out."""
        if self.theirs is None:
            return None
        file, output = self.folder / "in.jsonl", self.folder / "out.jsonl"
        file.write_bytes(data)
        async with self.ours.asleep():
            seconds, load = await self.theirs.run(file, output)
        said = output.read_bytes()
        return Done(seconds, len(batch_files.answers(said)), load), said

    async def warm_up(self) -> None:
        """The first few hundred requests after a start run at half speed, and ours learns what it plans with."""
        bench = self.bench
        self.bench.maker.writer.tokens_per_word = await load.tokens_per_word(self.ours.engine, MODEL)
        for turn in range(bench.given.warm_up_files):
            file = batch_files.jsonl(bench.maker.bodies("A", -1 - turn)[: bench.given.warm_up])
            bench.say(f"warming up, {turn + 1} of {bench.given.warm_up_files}")
            await self.run_theirs(file)
            await self.ours.batch(file)

    async def row(self, name: str) -> None:
        """Measure one row's repeats."""
        measure = {"E": self._cached, "F": self._jobs}.get(name, self._pair)
        for repeat in self.bench.repeats():
            await measure(name, repeat)

    async def _pair(self, name: str, repeat: int) -> None:
        """Both sides; those that are even begin with theirs."""
        data = batch_files.jsonl(self.bench.maker.bodies(name, repeat))
        found: dict[str, Done | None] = {}
        for whose in ("theirs", "ours") if repeat % 2 == 0 else ("ours", "theirs"):
            ran = await (self.ours.batch(data) if whose == "ours" else self.run_theirs(data))
            found[whose] = ran[0] if ran else None
        self.bench.keep(name, repeat, found["ours"], found["theirs"], first="theirs" if repeat % 2 == 0 else "ours")

    async def _cached(self, name: str, repeat: int) -> None:
        """A file as C's, sent once before any time is taken."""
        if not repeat:
            self.bench.say(f"{name}: filling the cache")
            self.cached = batch_files.jsonl(self.bench.maker.bodies("C", 0))
            await self.ours.batch(self.cached, **CACHED)
        before = self.bench.side("C", repeat, "theirs")
        ran = None if before else await self.run_theirs(self.cached)
        done, _ = await self.ours.batch(self.cached, **CACHED)
        self.bench.keep(name, repeat, done, before or (ran[0] if ran else None), first="theirs")

    async def _jobs(self, name: str, repeat: int) -> None:
        """Against the lines/s that ours had with the same requests in one batch."""
        bodies = self.bench.maker.bodies("A", repeat)
        one = self.bench.side("A", repeat, "ours") or (await self.ours.batch(batch_files.jsonl(bodies)))[0]
        self.bench.keep(name, repeat, await self.ours.jobs(bodies), one, first="theirs", against="ours of A")


@contextmanager
def sides(bench: Bench, folder: Path, arguments: tuple[str, ...]) -> Iterator[tuple[ours.Ours, Theirs | None]]:
    """Both engines with these flags besides those that were given, each with its own front."""
    given = bench.given
    on_cpu = not shutil.which("nvidia-smi")
    flags = theirs.flags([*given.engine_arg, *arguments], on_cpu) if given.engine == "vllm" else list(given.engine_arg)
    bench.found.setdefault("flags", []).append(" ".join(flags))
    folder.mkdir()
    source = _model(folder.parent) if given.engine == "vllm" else None
    both = given.engine == "vllm" and not given.only_ours
    starting = theirs.starting(MODEL, source or "", folder, flags, bench.say) if both else nullcontext(None)
    with starting as ready, ours.platform(
        folder / "data", engine=given.engine, arguments=flags, source=source, say=bench.say
    ) as running:  # fmt: skip
        yield running, ready() if ready else None


def _model(folder: Path) -> str:
    """The tiny model, made by a process of its own: torch would stay in ours."""
    source = str(folder / MODEL)
    subprocess.run([sys.executable, "-m", "penstock_worker.engine.tiny", source], check=True, capture_output=True)
    return source


def _on(
    bench: Bench, folder: Path, arguments: tuple[str, ...], measure: Callable[[Sides], Any], warm: bool = True
) -> None:
    """Measure on engines that live only for it."""

    async def all_of_it(platform: ours.Ours, other: Theirs | None) -> None:
        async with platform.engine.session() as engine, platform.api.session() as api, ours.tended(platform.running):
            side = Side(platform, api, engine, has_prefix_cache=bench.given.engine == "vllm")
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
    parents = [psutil.Process(pid) for pid in pids if pid is not None]
    family = [one for parent in parents for one in [parent, *parent.children(recursive=True)]]
    return sum(sum(one.cpu_times()[:2]) for one in family)


async def _rows(both: Sides, names: list[str]) -> None:
    for name in names:
        try:
            await both.row(name)
        except Refused as error:  # a field that this version does not know
            both.bench.say(f"{name} is left out: {error}")
            both.bench.found.setdefault("left_out", {})[name] = str(error)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", nargs="+", choices=list(ROWS), default=list(ROWS), help="what to measure (all)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--lines", type=int, default=2_000, help="of each file")
    parser.add_argument("--minutes", type=float, default=0, help="then start no second repeat (0: no end)")
    parser.add_argument("--trace", type=Path, help="CSV of a trace (else sizes from its quantiles)")
    parser.add_argument("--scale", type=float, default=SCALE, help="tokens of the trace times this")
    parser.add_argument("--warm-up", type=int, default=600, help="lines of a file before times are taken")
    parser.add_argument("--warm-up-files", type=int, default=2, help="how many such files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", action="store_true", help="only compare answers, with everything on and off")
    parser.add_argument("--check-lines", type=int, default=200)
    parser.add_argument("--only-ours", action="store_true", help="without vllm run-batch")
    parser.add_argument("--engine", default="vllm", help="echo: only to try the benchmark itself, without run-batch")
    parser.add_argument(
        "--engine-arg", action="append", default=[],
        help="given to both engines (--max-num-seqs 128 --max-num-batched-tokens 2048 unless told otherwise)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, default=Path("data/bench-batch.json"))
    given = parser.parse_args()
    if given.engine == "vllm":  # What vLLM chooses on a CPU; said, so that both sides have the same everywhere.
        for name, value in (("--max-num-seqs", "128"), ("--max-num-batched-tokens", "2048")):
            if not any(one.split("=")[0] == name for one in given.engine_arg):
                given.engine_arg += [name, value]
    return given


def _measure(bench: Bench, folder: Path) -> None:
    """The rows, grouped by their engines: two pairs of engines at once would not fit every machine."""
    if bench.given.check:
        _on(bench, folder / "check", FLOAT32, lambda both: batch_check.measure(both, CACHED), warm=False)
        return
    for number, arguments in enumerate(dict.fromkeys(ROWS[name].engine_args for name in bench.given.files)):
        names = [name for name in bench.given.files if ROWS[name].engine_args == arguments]
        _on(bench, folder / str(number), arguments, lambda both, names=names: _rows(both, names))


def main() -> None:
    """Measure every row that is asked for, print and write what came out."""
    given = parsed()
    found = result.begin(given)
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"  # vLLM's own way to reset its prefix cache over HTTP
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB, a million tokens of the tiny model
    writer = load.Writer(MODEL, seed=given.seed)
    maker = Maker(trace.of(given.trace), writer, given.scale, given.lines, given.seed)
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
    main()
