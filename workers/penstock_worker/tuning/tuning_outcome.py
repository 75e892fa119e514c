"""The outcome of a tuning: its points, what it recommends, and both as words, a table and a document."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from penstock.domain.models.tuning import Tuning
from penstock.domain.models.version import without_secrets
from penstock.model_source.definition import defined_here
from penstock_worker.tuning.coordinate_search import TuningPoint
from penstock_worker.tuning.verdict import PairVerdict

_GIB: Final = 1024**3


@dataclass
class TuningOutcome:
    """What is known by now; it grows while the tuning goes on."""

    model: str
    source: str
    engine: str
    base: tuple[str, ...]
    device: str
    lines: int
    points: list[TuningPoint] = field(default_factory=list)
    best: TuningPoint | None = None
    verdict: PairVerdict | None = None
    cut: str | None = None
    """What ended it before its time."""

    @property
    def is_faster(self) -> bool:
        """Whether another point than the base is recommended."""
        if self.best is None or self.best.arguments == self.base:
            return False
        return not self.base_works or (self.verdict is not None and self.verdict.is_faster)

    @property
    def base_works(self) -> bool:
        """Whether the base has a speed."""
        return bool(self.points and self.points[0].tokens_per_second)

    @property
    def chosen(self) -> TuningPoint | None:
        """What is recommended: the best if it is faster for sure, else the base; None if nothing works."""
        if self.is_faster:
            return self.best
        return self.points[0] if self.base_works else None

    @property
    def words(self) -> str:
        """What was found, in a sentence or two."""
        if not self.points:
            return "Nothing was measured."
        if self.best is None:
            return "Nothing of this works here."
        if self.cut and len(self.points) == 1:
            return "Nothing but the default was measured."
        if not self.base_works:
            return f"As it was given it does not work; {_flags(self.best.arguments)} is the fastest that does."
        if self.best.arguments == self.base:
            return "The default is as good: nothing that was tried is faster."
        flags = _flags(self.best.arguments)
        if self.verdict is None:
            return f"{flags} looked fastest, but was not compared in pairs: the default stays recommended."
        told = f"{self.verdict.ratio:.2f} times as fast"
        if self.verdict.pairs > 1:
            told += f" (95 %: {self.verdict.low:.2f} to {self.verdict.high:.2f})"
        told += f" in {self.verdict.pairs} pair{'s' * (self.verdict.pairs > 1)} of runs"
        if self.is_faster:
            return f"{flags} is {told}."
        if not self.verdict.is_clear:
            return f"Not clear yet: {flags} is {told} so far. The default stays recommended."
        return f"The default is as good: {flags} looked fastest, and is {told}, which may be chance."

    @property
    def command(self) -> str | None:
        """What starts a worker as is recommended, ready to be pasted; None if nothing works."""
        if self.chosen is None:
            return None
        named = self.source if self.source == self.model else f"{self.model}={self.source}"
        parts = ["penstock", "worker", "--model", named, "--engine", self.engine]
        return shlex.join([*parts, *(f"--engine-arg={one}" for one in without_secrets(self.chosen.arguments))])

    def tunings(self) -> list[Tuning]:
        """Its points, as Postgres keeps them."""
        return [
            Tuning(
                model=self.model,
                definition=defined_here(self.source, self.engine, one.arguments),
                device=self.device,
                digest=one.digest,
                chosen=one is self.chosen,
                tokens_per_second=one.tokens_per_second,
                kv_tokens=one.kv_tokens,
                load_seconds=one.load_seconds,
                wake_seconds=one.wake_seconds,
                memory_bytes=one.memory_bytes,
                trouble=one.trouble if one.tokens_per_second is None else None,
            )
            for one in self.points
        ]

    def document(self) -> dict[str, Any]:
        """All of it, for programs; values of arguments that look like secrets are hidden."""
        chosen = self.chosen
        return {
            "object": "tuning",
            "model": self.model,
            "source": self.source,
            "engine": self.engine,
            "device": self.device,
            "lines": self.lines,
            "points": [
                asdict(one) | {"arguments": list(without_secrets(one.arguments)), "chosen": one is chosen}
                for one in self.points
            ],
            "paired": None if self.verdict is None else _finite(self.verdict),
            "found": self.words,
            "cut": self.cut,
            "command": self.command,
        }

    def table(self) -> Iterator[str]:
        """Its points, a line each, under a line of heads."""
        rows = [("", "tokens/s", "KV tokens", "load s", "wake s", "memory", "arguments")]
        for one in self.points:
            mark = "*" if one is self.chosen else ""
            speed = "–" if one.tokens_per_second is None else f"{one.tokens_per_second:,.0f}"
            kv, memory = _told(one.kv_tokens, "{:,}"), _told(one.memory_bytes and one.memory_bytes / _GIB, "{:.2f} GiB")
            load, wake = _told(one.load_seconds, "{:.1f}"), _told(one.wake_seconds, "{:.2f}")
            why = f"  ({one.trouble})" if one.trouble else ""
            rows.append((mark, speed, kv, load, wake, memory, _flags(one.arguments) + why))
        widths = [max(len(row[place]) for row in rows) for place in range(6)]
        for row in rows:
            figures = (text.rjust(width) for text, width in zip(row[1:6], widths[1:], strict=True))
            yield "  ".join((row[0].ljust(1), *figures, row[6]))


def _told(value: float | None, how: str) -> str:
    return how.format(value) if value is not None else ""


def _flags(arguments: Sequence[str]) -> str:
    return shlex.join(without_secrets(tuple(arguments))) or "(none)"


def _finite(verdict: PairVerdict) -> dict[str, float | int | None]:
    """JSON has no infinity: a single pair has no interval."""
    alone = verdict.pairs < 2
    return {
        "ratio": verdict.ratio,
        "low": None if alone else verdict.low,
        "high": None if alone else verdict.high,
        "pairs": verdict.pairs,
    }


Say = Callable[[str], None]
"""Tells a person how far it is."""


def progress(point: TuningPoint, number: int) -> str:
    """One point, as soon as it is known."""
    if point.tokens_per_second is None:
        return f"{number}. {_flags(point.arguments)}: does not work: {point.trouble}"
    return f"{number}. {_flags(point.arguments)}: {point.tokens_per_second:,.0f} tokens/s"
