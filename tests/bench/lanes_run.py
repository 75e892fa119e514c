"""A run of `make bench-lanes`: what was asked for and what was found so far, on disk after each window.

An arm that fails is noted with its reason, and the run goes on; time that is over ends it between two rounds.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import aiohttp
import openai
from bench import lanes_report, result
from bench.arms import Plan, Window
from sqlalchemy.exc import SQLAlchemyError

_LEAST_LINES: Final = 1_000
# What a stall of the machine makes of a request, of a look at the database, or of the engine's end of a connection.
_STALLS: Final = (TimeoutError, OSError, aiohttp.ClientError, openai.OpenAIError, SQLAlchemyError, RuntimeError)


@dataclass
class Bench:
    """What was asked for, and what was found so far."""

    given: argparse.Namespace
    plan: Plan
    head: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    windows: list[Window] = field(default_factory=list)
    lost: list[dict[str, Any]] = field(default_factory=list)
    objectives: list[dict[str, Any]] = field(default_factory=list)
    jobs: dict[str, Any] | None = None

    @property
    def long(self) -> Plan:
        """The same with long answers of batch lines."""
        return replace(self.plan, alike=self.given.long_lines)

    def say(self, words: str) -> None:
        """Tell whoever waits."""
        print(f"[bench] {words}", flush=True)

    def keep(self, window: Window) -> None:
        """Take a window in, and write all that was found so far."""
        self.windows.append(window)
        self.say(lanes_report.line(window))
        self.write()

    async def arm(self, name: str, round: int, measuring: Awaitable[Window]) -> None:
        """Keep what an arm measures in this round; if it fails, say so and go on."""
        try:
            self.keep(await measuring)
        except* _STALLS as group:
            why = "; ".join(f"{type(error).__name__}: {error}" for error in group.exceptions)
            self.lost.append({"arm": name, "round": round, "why": why})
            self.say(f"{name} (round {round}) is lost: {why}")
            self.write()

    def rounds(self, count: int) -> Iterator[int]:
        """The rounds of one part: the first in any case, later ones until the time is over."""
        for round in range(count):
            if round and self.given.minutes and time.monotonic() - self.began > 60 * self.given.minutes:
                self.say(f"{self.given.minutes:g} minutes are over after {round} rounds of this part")
                return
            yield round

    def of(self, arm: str) -> list[Window]:
        """An arm's windows, by round."""
        return sorted((window for window in self.windows if window.arm == arm), key=lambda window: window.round)

    def both(self, first: str, second: str) -> list[tuple[Window, Window]]:
        """The windows of two arms, of the rounds in which both were measured."""
        rounds = {window.round: window for window in self.of(first)}
        return [(rounds[window.round], window) for window in self.of(second) if window.round in rounds]

    def order(self, names: list[str], round: int) -> list[str]:
        """The arms in this round's order."""
        return random.Random(self.given.seed * 1_000 + round).sample(names, len(names))

    def lines_for(self, seconds: float) -> int:
        """Lines that certainly last so long: twice what the best arm served, and what fills the engine first."""
        best = max((window.lines_per_second for window in self.windows), default=100.0)
        return max(_LEAST_LINES, round(2.0 * best * (seconds + 10)))

    def found(self) -> dict[str, Any]:
        """All of it, for a file and for the report."""
        return self.head | {
            "trace": self.plan.trace.source,
            "seconds": round(time.monotonic() - self.began),
            "curve": lanes_report.curve(self.windows),
            "targets": lanes_report.targets(self),
            "objectives": self.objectives,
            "small_job": self.jobs,
            "lost": self.lost,
            "windows": [window.json() for window in self.windows],
        }

    def write(self) -> None:
        """Write the file anew."""
        result.write(self.given.json, self.found())
