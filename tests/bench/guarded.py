"""A guarded process: an engine that a benchmark starts, under the guard that the engine of a worker has.

However the benchmark ends, SIGKILL included, the guard kills the engine and all processes that it has started
(`penstock_worker/engine/process/guard.py`).
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.domain.engines.profile import EngineProfile, EngineSource
from penstock_worker.engine.launch_spec import Launch
from penstock_worker.engine.process.engine_process import EngineProcess

_TESTS: Final = Path(__file__).parents[1]


@dataclass(frozen=True)
class Guarded:
    """A command that was started under a guard."""

    process: EngineProcess
    log: Path
    pid: int
    """The guard's: everything that the command starts descends from it."""

    def ended(self, seconds: float = 0.0) -> bool:
        """Whether it has ended, or ends within these seconds."""
        until = time.monotonic() + seconds
        while select.select([self.process.line], [], [], max(0.0, until - time.monotonic()))[0]:
            if not self.process.heard():
                return True
        return False


@contextmanager
def running(
    name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path, *, grace_seconds: float = 20.0
) -> Iterator[Guarded]:
    """Run a command; at the end of the `with` it is asked to end, and after the grace nothing of it is left.

    Its log is `NAME.log` in the folder; if it makes a socket `NAME.sock` there, that goes with it.
    """
    launch = Launch(
        profile=EngineProfile(name, "what a benchmark starts", "", EngineSource.MODEL),
        model="", command=tuple(command), environment=environment, socket=folder / f"{name}.sock",
        batch_slots=1, engine_slots=1, start_timeout_seconds=0.0,
    )  # fmt: skip
    log = folder / f"{name}.log"
    with EngineProcess(launch, 1, record_path=folder / f"{name}.processes", log_path=log) as process:
        guarded = Guarded(process, log, process.processes[0].pid)
        try:
            yield guarded
        finally:
            process.note()
            if not guarded.ended():
                process.tell_to_end()
                guarded.ended(grace_seconds)


def with_benchmarks(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which an interpreter finds these benchmarks, beside what it finds there already."""
    paths = (str(_TESTS), environment.get("PYTHONPATH"))
    return dict(environment) | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def without_benchmarks(environment: Mapping[str, str]) -> dict[str, str]:
    """Where the benchmarks are imported from is no concern of the platform's; where its own packages are may be."""
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    kept = os.pathsep.join(path for path in paths if path and Path(path).resolve() != _TESTS)
    others = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    return others | ({"PYTHONPATH": kept} if kept else {})
