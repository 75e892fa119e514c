"""A run of `make bench-batch`: what was asked for, what was found so far, and how each row is measured on both sides.

Repeats go round: each row's first, then each row's second, so that a run that is cut short knows something of each.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import openai
from bench import batch_files, batch_report, load, result
from bench.arms import idle
from bench.batch_files import EMBEDDINGS, MODEL, ROWS, SCORE, Maker
from bench.batch_ours import Done, Refused, Side
from bench.load import CHAT
from bench.theirs import Theirs

CACHED: Final = {"cache": {"mode": "on"}}
"""What a create says so that answers come from the shared cache, and go there."""
LOSSES: Final = (RuntimeError, ValueError, OSError, aiohttp.ClientError, openai.OpenAIError)
"""What a run that went wrong raises: a line that was not answered, a server that did not answer in time."""


@dataclass
class Bench:
    """What was asked for, and what was found so far."""

    given: argparse.Namespace
    maker: Maker
    found: dict[str, Any]
    began: float = field(default_factory=time.monotonic)
    pairs: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Rows that this version can't be asked for, and why."""
    lost: dict[str, str] = field(default_factory=dict)
    """What failed, and why."""

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
        self.found |= {"pairs": self.pairs, "left_out": self.left_out, "lost": self.lost}
        result.write(self.given.json, self.found)

    def lose(self, what: str, error: BaseException) -> None:
        """Note why something could not be measured, and go on."""
        self.lost[what] = f"{type(error).__name__}: {error}"
        self.say(f"{what} is lost: {self.lost[what]}")
        self.write()

    def side(self, row: str, repeat: int, whose: str) -> Done | None:
        """What was measured of a row before."""
        for pair in self.pairs:
            if (pair["row"], pair["repeat"]) == (row, repeat) and pair[whose]:
                return Done.read(pair[whose])
        return None

    def over(self, share: float) -> bool:
        """Whether this share of the time that was given is over."""
        minutes = self.given.minutes * share
        return bool(minutes) and time.monotonic() - self.began > 60 * minutes


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
            file = self._file("A" if self.ours.url == CHAT else "G", -1 - turn, bench.given.warm_up)
            bench.say(f"warming up, {turn + 1} of {bench.given.warm_up_files}")
            await self.run_theirs(file)
            await self.ours.batch(file)

    def _file(self, name: str, repeat: int, most: int | None = None) -> bytes:
        return batch_files.jsonl(self.bench.maker.bodies(name, repeat)[:most], ROWS[name].url)

    async def rows(self, names: list[str], share: float) -> None:
        """Measure these rows, each at least once, until their share of the time is over."""
        bench, measures = self.bench, {"E": self._cached, "F": self._jobs}
        for repeat in range(bench.given.repeats):
            if repeat and bench.over(share):
                bench.say(f"the time of these rows is over after {repeat} repeats")
                return
            for name in [name for name in names if name not in bench.left_out]:
                try:
                    await measures.get(name, self._pair)(name, repeat)
                except Refused as error:
                    bench.left_out[name] = str(error)
                    bench.say(f"{name} is left out: {error}")
                except LOSSES as error:
                    bench.lose(f"{name} (repeat {repeat})", error)
                    await idle(self.ours.engine)  # what the next one measures is its own

    async def _pair(self, name: str, repeat: int) -> None:
        """Both sides; those that are even begin with theirs."""
        data = self._file(name, repeat)
        run = self.ours.command if name == "H" else self.ours.batch
        found: dict[str, Done | None] = {}
        said: dict[str, bytes] = {}
        for whose in ("theirs", "ours") if repeat % 2 == 0 else ("ours", "theirs"):
            ran = await (run(data) if whose == "ours" else self.run_theirs(data))
            found[whose] = ran[0] if ran else None
            said |= {whose: ran[1]} if ran else {}
        more: dict[str, Any] = {"first": "theirs" if repeat % 2 == 0 else "ours"}
        if ROWS[name].url in (EMBEDDINGS, SCORE) and len(said) == 2:
            more |= {"vectors": batch_files.likeness(said["theirs"], said["ours"])}
        if self.bench.given.off and not repeat and (off := ROWS[name].off):
            more |= {"without": (await self.ours.batch(data, **off))[0].json(), "off": ", ".join(off)}
        self.bench.keep(name, repeat, found["ours"], found["theirs"], **more)

    async def _cached(self, name: str, repeat: int) -> None:
        """A file as C's, sent once before any time is taken."""
        if not repeat:
            self.bench.say(f"{name}: filling the cache")
            self.cached = self._file("C", 0)
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
