"""A part of the course: one question, the benchmark that answers it, and the rows that its JSON becomes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bench.gpu.shapes import Models, Shape

LEAST_MINUTES: Final = 0.05
"""To a benchmark 0 is no end."""
END_SECONDS: Final = 25.0
"""Of a part's time, for its engines to end."""
_ECHO_START_SECONDS: Final = 12.0


@dataclass(frozen=True)
class Setting:
    """What all parts of a run share."""

    shape: Shape
    models: Models
    engine: str = "vllm"
    on_cpu: bool = True
    """Whether engines compute on the CPU: there is no card then whose memory they share."""

    @property
    def tiny(self) -> bool:
        """Whether only the course is tried, on two cores."""
        return self.shape.dummy is False

    def arguments(self, *more: str) -> list[str]:
        """`--engine …` and an `--engine-arg` for each of these, and for what the shape needs."""
        if self.engine != "vllm":
            return ["--engine", self.engine, "--engine-arg=--latency-ms=400"]
        given = (*(("--load-format=dummy",) if self.shape.dummy else ()), *more)
        return [f"--engine-arg={argument}" for argument in given]


@dataclass(frozen=True)
class Row:
    """A line of the table. None is what was not measured."""

    what: str
    unit: str
    ours: float | None
    theirs: float | None
    ratio: float | None = None
    remark: str = ""
    alone: bool = False
    """It has no other side."""
    excuse: str = ""
    """Why it can't be measured here."""

    @property
    def open(self) -> bool:
        """Whether it is still to be measured."""
        return (self.ours is None or (self.theirs is None and not self.alone)) and not self.excuse

    def json(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)


@dataclass(frozen=True)
class Part:
    """One part. `least_seconds` is what it takes if each thing is measured once."""

    name: str
    question: str
    starts: int
    """Engine starts, one after the other."""
    work_seconds: tuple[float, float]
    """What it does between the starts and the end, once: on a GPU, and in the shape `tiny`."""
    weight: float
    """Of the time that is left over."""
    command: Callable[[Setting, float, Path], Sequence[str]]
    """Setting, minutes after which it begins nothing more, JSON file."""
    rows: Callable[[dict[str, Any]], Sequence[Row]]
    applies: Callable[[Setting], bool] = lambda setting: True

    def least_seconds(self, setting: Setting) -> float:
        """What it takes at least."""
        start = setting.shape.start_seconds if setting.engine == "vllm" else _ECHO_START_SECONDS
        return self.starts * start + self.work_seconds[setting.tiny] + END_SECONDS


def benchmark(module: str, *options: str) -> list[str]:
    """The command of one of the benchmarks beside this folder."""
    return [sys.executable, "-m", f"bench.{module}", *options]
