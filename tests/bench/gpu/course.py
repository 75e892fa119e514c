"""The course: which part runs next, for how long, and what became of it; on disk after each, so that a call goes on.

    untried ──► done             its rows are all there: it is left alone from then on, while its file is there
       └──────► cut, failed      it comes again, after those that no call has begun

Two parts in a row whose engines never became ready end a call: what ails them ails the next one, too.
A try writes a file of its own, and what an earlier one found is kept unless this one found as many rows.
What a call has no time for stays untried. What was cut gets half as much again: how long an engine starts is a guess.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from bench import guarded, result
from bench.gpu.part import END_SECONDS, LEAST_MINUTES, Part, Row, Setting

_MORE: Final = 1.5
_ERROR: Final = re.compile(r"[\w.]*(Error|Exception)(?=:|$)")
_BORDERS: Final = "+-| "
"""That a traceback draws around the exceptions of a group."""
_MOST: Final = 0.95
_GRACE_SECONDS: Final = 60.0
_READY: Final = (" is ready (", "] offline: ")
"""What a benchmark prints once it has an engine, or has had one."""
_MOST_UNREADY: Final = 2


class Status(StrEnum):
    """What became of a part."""

    DONE = "done"
    CUT = "cut"
    FAILED = "failed"
    NO_TIME = "no time"


@dataclass
class Course:
    """The parts, in the order in which they have waited, and the folder in which their results are."""

    parts: Sequence[Part]
    setting: Setting
    folder: Path
    say: Callable[[str], None]
    head: dict[str, Any] = field(default_factory=dict)
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = math.inf
    """Of this call."""
    ended: str = ""
    """Why this call ended before its time."""

    @property
    def file(self) -> Path:
        """All that is known."""
        return self.folder / "bench-gpu.json"

    def run(self, names: Sequence[str], seconds: float) -> None:
        """Run what is not done of these, until the time is over or nothing fits into what is left."""
        end = time.monotonic() + seconds
        self.seconds = seconds
        self._forget_what_has_no_file()
        tried: set[str] = set()
        unready = 0
        while shares := self.shares([part for part in self.waiting(names) if part.name not in tried], _left(end)):
            name, share = next(iter(shares.items()))
            tried.add(name)
            had_engine = self._run(next(part for part in self.parts if part.name == name), share)
            unready = 0 if had_engine else unready + 1
            if unready == _MOST_UNREADY:
                self.ended = f"{unready} parts in a row had no engine that became ready, the last one ({name}): ended"
                self.say(f"{self.ended}; log: {self.folder / name}.log")
                return
        for part in self.waiting(names):
            if part.name not in tried and self._status(part.name) in (None, Status.NO_TIME):
                why = f"{_left(end):.0f} s were left, {self.least_seconds(part):.0f} are needed"
                self._note(part.name, Status.NO_TIME, why)

    def _forget_what_has_no_file(self) -> None:
        """What is done is untried again if somebody took its file away."""
        for name, outcome in list(self.outcomes.items()):
            if outcome["status"] == Status.DONE and not self._file(name).exists():
                del self.outcomes[name]

    def waiting(self, names: Sequence[str]) -> list[Part]:
        """What is not done, those that were never begun first."""
        left = [part for part in self.parts if part.name in names and self._status(part.name) is not Status.DONE]
        return sorted(left, key=lambda part: self._status(part.name) in (Status.CUT, Status.FAILED))

    def least_seconds(self, part: Part) -> float:
        """What a part gets at least; no more than a call can give, unless it needs more in any case."""
        cuts: int = self.outcomes.get(part.name, {}).get("cuts", 0)
        least = part.least_seconds(self.setting)
        return max(least, min(least * _MORE**cuts, _MOST * self.seconds))

    def shares(self, waiting: Sequence[Part], seconds: float) -> dict[str, float]:
        """Seconds for each part that fits, in order: the least that it takes, and its share of what is left over."""
        fits: list[Part] = []
        left = seconds
        for part in waiting:
            if (least := self.least_seconds(part)) <= left:
                fits.append(part)
                left -= least
        weights = sum(part.weight for part in fits)
        return {part.name: self.least_seconds(part) + left * part.weight / weights for part in fits}

    def _file(self, name: str) -> Path:
        """What a part has found."""
        return self.folder / f"{name}.json"

    def _status(self, name: str) -> Status | None:
        return Status(self.outcomes[name]["status"]) if name in self.outcomes else None

    def _run(self, part: Part, seconds: float) -> bool:
        """Run one in its time, under a guard: nothing that it starts outlives it. Returns whether it had an engine."""
        file, began = self.folder / f"{part.name}.new.json", time.monotonic()
        file.unlink(missing_ok=True)
        log = self.folder / f"{part.name}.log"
        before = log.stat().st_size if log.exists() else 0
        # What it does at least is about one repeat: after that it begins no other.
        minutes = max(LEAST_MINUTES, (seconds - END_SECONDS - part.work_seconds[self.setting.tiny]) / 60)
        self.say(f"({part.name}) {part.question} {seconds:.0f} s at most; log: {log}")
        command = part.command(self.setting, minutes, file)
        environment = guarded.with_benchmarks(os.environ)
        with guarded.running(part.name, command, environment, self.folder, grace_seconds=_GRACE_SECONDS) as child:
            cut = not child.ended(max(1.0, seconds - END_SECONDS))
        took = time.monotonic() - began
        said = log.read_bytes()[before:].decode(errors="replace")  # calls before this one have written there, too
        found = _read(file)
        open_rows = [row.what for row in part.rows(found) if row.open]
        of = self._adopt(part, file, len(open_rows))
        if cut and open_rows:
            self._note(part.name, Status.CUT, f"it was not done after {seconds - END_SECONDS:.0f} s", took, of)
        elif open_rows or (child.process.status and not cut):
            self._note(part.name, Status.FAILED, _why(child, said, found, open_rows), took, of)
        else:
            self._note(part.name, Status.DONE, "before all its repeats" if cut else "", took, of)
        return self._status(part.name) is Status.DONE or any(words in said for words in _READY)

    def _adopt(self, part: Part, new: Path, open_rows: int) -> dict[str, Any]:
        """Take a try's file for the part's, unless an earlier one has more rows. Returns what that was measured of."""
        own, before = self._file(part.name), self.outcomes.get(part.name, {}).get("of")
        if before and own.exists() and sum(row.open for row in self.rows(part)) < open_rows:
            self.say(f"({part.name}) what an earlier try found is kept: it has more rows")
            return dict(before)
        if new.exists():
            new.replace(own)
        else:
            own.unlink(missing_ok=True)  # of a machine or a time that --fresh has done with
        return self.of()

    def of(self) -> dict[str, Any]:
        """The commit and the driver that are measured now."""
        cards = self.head.get("card", {}).get("cards") or [{}]
        return {"commit": self.head["code"]["commit"], "driver": cards[0].get("driver")}

    def _note(
        self, name: str, status: Status, why: str, seconds: float = 0.0, of: dict[str, Any] | None = None
    ) -> None:
        cuts = self.outcomes.get(name, {}).get("cuts", 0) + (status is Status.CUT)
        outcome = {"status": status.value, "why": why, "seconds": round(seconds), "cuts": cuts, "of": of}
        self.outcomes[name] = outcome
        self.say(f"({name}) {status.value}{f': {why}' if why else ''}{f', {seconds:.0f} s' if seconds else ''}")
        self.write()

    def found(self) -> dict[str, Any]:
        """All of it: what was asked, what became of each part, and the table's rows."""
        rows = {part.name: [row.json() for row in self.rows(part)] for part in self.parts if part.name in self.outcomes}
        return self.head | {"parts": self.outcomes, "rows": rows}

    def rows(self, part: Part) -> Sequence[Row]:
        """What a part has found so far."""
        return part.rows(_read(self._file(part.name)))

    def write(self) -> None:
        """Write the file anew, all at once."""
        unfinished = self.file.with_suffix(".unfinished")
        result.write(unfinished, self.found())
        unfinished.replace(self.file)


def _left(end: float) -> float:
    return max(0.0, end - time.monotonic())


def _read(file: Path) -> dict[str, Any]:
    """A part's JSON; empty if there is none that can be read."""
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found


def _why(child: guarded.Guarded, said: str, found: Mapping[str, Any], open_rows: Sequence[str]) -> str:
    """The reason that the benchmark itself notes, else the last error that it printed, else its last line."""
    lost = found.get("lost")
    if lost:
        return f"{open_rows or 'lost'}: {next(iter(lost.values())) if isinstance(lost, dict) else lost[0]['why']}"
    lines = [line for line in (line.strip(_BORDERS) for line in said.splitlines()) if line]
    if not child.process.status or not lines:
        return f"not measured: {', '.join(open_rows)}"
    return next((line for line in reversed(lines) if _ERROR.match(line)), lines[-1])
