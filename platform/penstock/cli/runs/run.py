"""A run: a file's lines on their way to a place and back, from wherever an earlier call of the same command stopped."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from penstock.cli.client import ask
from penstock.cli.input_file import upload
from penstock.cli.own_files import keep_apart, part_of, plain_file, target
from penstock.cli.places import following, sidecar
from penstock.cli.places.options import PlaceOptions
from penstock.cli.places.place import OpenPlace, opened
from penstock.cli.places.sidecar import Growing, Part, Sidecar
from penstock.cli.runs import output
from penstock.cli.runs.output import OutputCounts
from penstock.cli.runs.requests_file import Survey, digest, placed, survey, write_part
from penstock.settings import load
from penstock.stack.problem import Problem

_ERRORS_TOLD: Final = 20

States = Sequence[dict[str, Any]]


@dataclass
class Run:
    """One call of the command."""

    file: Path
    out: Path
    errors: Path | None
    place: PlaceOptions
    lane: str
    window: str
    on_invalid: str
    say: Callable[[str], None]
    console: Console
    _goes_on: list[str] = field(default_factory=list)
    """Batches that go on where they are when this command ends."""

    def estimates(self) -> Iterator[tuple[Part, dict[str, Any]]]:
        """What each part of the file would take, as the API estimates it; nothing of it is kept. Raises Problem."""
        parts = self._survey().parts
        with opened(self.place, self.say) as here, tempfile.TemporaryDirectory(prefix="penstock-run-") as folder:
            for number, part in enumerate(parts):
                id = upload(here.client, write_part(self.file, parts, number, Path(folder) / "part.jsonl"))
                asked = self._terms(here) | {"endpoint": part.endpoint, "input_file_id": id}
                asked.pop("on_invalid")
                try:
                    yield part, ask(here.client, "POST", "/batches/estimate", json=asked)
                finally:
                    ask(here.client, "DELETE", f"/files/{id}")

    def go(self, *, fresh: bool, retry_failed: bool) -> OutputCounts:
        """Ask what is missing, and write OUT; at once if nothing is. Raises Problem."""
        self._check_names()
        with sidecar.growing(self.out) as growing:
            car = sidecar.reopened(self.out, self._identity(), fresh=fresh)
            known = OutputCounts(**car.more["counts"]) if car.ended else None
            if known and self._is_there() and not (retry_failed and known.failed):
                self.say(f"{self.out} is whole since an earlier call: {known}; --fresh asks it all again")
                return known
            if not car.parts:
                self._begin(car, fresh)
            began = time.monotonic()
            with opened(self.place, self.say) as here:
                following.cancel_left_behind(here, car)
                states = self._followed(here, car, growing)
                if retry_failed and following.retry_all_failed(here, car, states):
                    states = self._followed(here, car, growing)
                counts = self._write(here, car, states)
            self._end(car, growing, counts)
            where = f" ({self.errors or 'in their places there'})" if counts.failed else ""
            self.say(f"{self.out} is whole: {counts}{where}, {time.monotonic() - began:.1f} s")
        return counts

    def how_to_go_on(self) -> str:
        """For whoever interrupted it."""
        if not self._goes_on:
            return "the same command again goes on"
        ids = " ".join(self._goes_on)
        return f"{ids} goes on there: the same command again follows it, `penstock batches cancel` ends it"

    def _identity(self) -> dict[str, str]:
        return {"command": "run", "input": digest(self.file), **self.place.identity()}

    def _check_names(self) -> None:
        if any(str(one).startswith(("http:/", "https:/")) for one in (self.file, self.out)):
            raise Problem("penstock run reads and writes files: fetch IN with `curl -o in.jsonl URL` before.")
        plain_file(self.file, "write it to a file first")
        self.out, self.errors = target(self.out), self.errors and target(self.errors)
        keep_apart([one for one in (self.out, self.errors) if one], [self.file])

    def _is_there(self) -> bool:
        return self.out.exists() and (self.errors is None or self.errors.exists())

    def _survey(self) -> Survey:
        limits = load()
        found = survey(self.file, limits.max_file_lines, limits.max_file_bytes)
        if found.odd and self.on_invalid == "fail":
            where = f"Line {found.odd.number} of {self.file}"
            raise Problem(f"{where} {found.odd.fault}; --on-invalid skip counts such lines as failed.")
        return found

    def _begin(self, car: Sidecar, fresh: bool) -> None:
        if self.errors and self.errors.exists() and not fresh:
            raise Problem(f"{self.errors} is there already: choose another, or say --fresh to replace it.")
        car.parts = self._survey().parts
        self.place.check()
        car.save()

    def _terms(self, here: OpenPlace) -> dict[str, Any]:
        terms = {"model": here.model, "lane": self.lane, "completion_window": self.window}
        return terms | {"on_invalid": self.on_invalid}

    def _followed(self, here: OpenPlace, car: Sidecar, growing: Growing) -> States:
        """Send what is not sent yet, and bring everything; the batches' last states."""
        alone = part_of(self.out, "input")
        for number, part in enumerate(car.parts):
            make = partial(write_part, self.file, car.parts, number, alone)
            following.submit(here, car, part, make, self._terms(here))
            alone.unlink(missing_ok=True)
        if here.stays:
            self._goes_on = [str(part.batch) for part in car.parts]
        if len(car.parts) > 1:
            self._refuse_together(here, car, growing)
        states = following.follow(here, car, growing, self.console)
        self._check(car, growing, states)
        return states

    def _refuse_together(self, here: OpenPlace, car: Sidecar, growing: Growing) -> None:
        """If one part can't be asked, none is: see all of them validated first."""
        states = [following.validated(here, part) for part in car.parts]
        if any(one["status"] == "failed" for one in states):
            for state in states:
                with suppress(Problem):  # it ended meanwhile
                    ask(here.client, "POST", f"/batches/{state['id']}/cancel")
            self._check(car, growing, states)

    def _check(self, car: Sidecar, growing: Growing, states: States) -> None:
        """Raise Problem if batches failed; after lines that can't be asked were mended, the next call starts anew."""
        failed = {n: one for n, one in enumerate(states) if one["status"] == "failed"}
        if not failed:
            return
        found = [(n, error) for n, one in failed.items() for error in (one["errors"] or {}).get("data", [])]
        wanted = {(n, error["line"]) for n, error in found[:_ERRORS_TOLD]}
        lines = {(at, number): one.number for at, number, one in placed(self.file, car.parts) if (at, number) in wanted}
        for n, error in found[:_ERRORS_TOLD]:
            where = f"line {lines[n, error['line']]}: " if (n, error["line"]) in lines else ""
            self.console.print(f"  {where}{error['message']} ({error['code']})", soft_wrap=True)
        total = sum((one["errors"] or {}).get("total", 0) for one in failed.values())
        if any(one["in_progress_at"] is None for one in failed.values()):
            growing.cut(0)
            car.forget()
        raise Problem(f"{self.file} was refused, for {total:,} error{'s' if total != 1 else ''}: nothing is written.")

    def _write(self, here: OpenPlace, car: Sidecar, states: States) -> OutputCounts:
        if digest(self.file) != car.identity["input"]:
            raise Problem(f"{self.file} was changed meanwhile: bring back what it was, or say --fresh.")
        files = [following.fetch_files(here, car, n, states[n], self.out) for n in range(len(car.parts))]
        counts = output.write(self.file, car.parts, files, self.out, self.errors)
        for one in (one for pair in files for one in pair):
            one.unlink()
        return counts

    def _end(self, car: Sidecar, growing: Growing, counts: OutputCounts) -> None:
        car.ended, car.part_bytes = True, 0
        car.more = {"counts": {"answered": counts.answered, "failed": counts.failed}}
        car.save()
        growing.cut(0)  # and so it goes: OUT has everything
