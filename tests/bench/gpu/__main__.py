"""`make bench-gpu`: what a card can say about Penstock, in the minutes that there are; the next call goes on.

It looks at the machine, makes models of the size of known ones (no download), runs the other benchmarks on them part by
part, and prints one table: ours, theirs, their ratio. Parts that are done are left alone until `--fresh`.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any, Final

from bench import engine_python, result, stop
from bench.gpu import batch, calls, lanes, machine, shapes, start, table, wheels
from bench.gpu.course import Course
from bench.gpu.part import Setting

PARTS: Final = (
    lanes.PART, batch.FILES, calls.PART, batch.EMBEDDINGS, start.PART, batch.ALONE, batch.SHARED, batch.SMALL,
)  # fmt: skip
"""In the order in which their questions have waited."""


def say(words: str) -> None:
    """Tell whoever waits."""
    print(f"[bench-gpu] {words}", flush=True)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [part.name for part in PARTS]
    parser.add_argument("--parts", nargs="+", choices=names, default=names, help="what to measure (all)")
    parser.add_argument("--minutes", type=float, default=25.0, help="of this call")
    parser.add_argument("--shape", choices=list(shapes.SHAPES), default="8b", help="tiny: the course, without a GPU")
    parser.add_argument("--engine-python", type=Path, help="interpreter with vLLM (PENSTOCK_ENGINE_PYTHON)")
    parser.add_argument("--wheels", help="folder or index with vLLM for CUDA: an environment is made of it")
    parser.add_argument("--vllm", default="vllm", help="what to install of it, as pip takes it: vllm==0.25.1")
    parser.add_argument("--fresh", action="store_true", help="measure again what is done of these parts")
    parser.add_argument("--engine", default="vllm", help="echo: only to try the course, with --shape tiny")
    parser.add_argument("--out", type=Path, default=Path("data/bench-gpu"), help="folder of results and models")
    return parser.parse_args()


def _prepare(given: argparse.Namespace) -> machine.Machine:
    """Choose or make the engines' interpreter, and look at the machine; ends with one line if that can't work."""
    if given.engine_python:
        os.environ["PENSTOCK_ENGINE_PYTHON"] = str(given.engine_python)
    made = given.out / "venv"
    try:
        if given.wheels:
            wheels.environment(given.wheels, made, given.vllm, say)
    except wheels.NotSetUp as error:
        sys.exit(f"[bench-gpu] missing: {error}")
    if wheels.ready(made).exists() and (given.wheels or "PENSTOCK_ENGINE_PYTHON" not in os.environ):
        os.environ["PENSTOCK_ENGINE_PYTHON"] = str((made / "bin" / "python").absolute())
    engine_python.build.cache_clear()
    found = machine.look()
    say(found.text())
    if lacking := machine.missing(found, shapes.SHAPES[given.shape]):
        sys.exit(f"[bench-gpu] missing: {lacking}")
    return found


def _course(given: argparse.Namespace, there: machine.Machine, models: shapes.Models) -> Course:
    """With what calls before this one found; ends with one line if that was another machine, or shape."""
    setting = Setting(shapes.SHAPES[given.shape], models, given.engine, there.on_cpu)
    head = result.begin(given) | {"told": there.text(), "card": there.json()}
    head["identity"] = there.identity() | {"shape": given.shape, "engine": given.engine}
    course = Course([part for part in PARTS if part.applies(setting)], setting, given.out, say, head)
    if course.file.exists() and not (given.fresh and set(given.parts) == {part.name for part in PARTS}):
        before: dict[str, Any] = json.loads(course.file.read_text())
        if before["identity"] != head["identity"]:
            sys.exit(f"[bench-gpu] {given.out} has results of {before['identity']}: --fresh, or another folder (--out)")
        skipped = given.parts if given.fresh else ()
        course.outcomes = {name: outcome for name, outcome in before["parts"].items() if name not in skipped}
    return course


def alone(folder: Path) -> IO[str]:
    """The folder's lock, for as long as it stays open; ends with one line if another call has it."""
    file = (folder / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        sys.exit(f"[bench-gpu] another call measures in {folder} already, process {file.read()}: wait for it or end it")
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def main() -> None:
    """Run what is not done yet, in the minutes that there are; print and write the table."""
    end = time.monotonic()
    given = parsed()
    end += 60 * given.minutes
    given.out.mkdir(parents=True, exist_ok=True)
    lock = alone(given.out)
    there = _prepare(given)
    try:
        models = shapes.make(shapes.SHAPES[given.shape], given.out / "models")
    except subprocess.CalledProcessError as error:
        sys.exit(f"[bench-gpu] missing: the models can't be made: {error.stderr.decode().strip()[-300:]}")
    course = _course(given, there, models)
    try:
        course.run(given.parts, end - time.monotonic())
    finally:  # What was measured is shown, whatever became of the rest.
        course.write()
        (given.out / "bench-gpu.md").write_text(table.markdown(course))
        print(table.markdown(course), flush=True)
        say(f"{course.file}, {given.out / 'bench-gpu.md'}")
        lock.close()


if __name__ == "__main__":
    stop.orderly(main)
