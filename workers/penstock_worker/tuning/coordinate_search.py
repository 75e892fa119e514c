"""The search: coordinate by coordinate from where the user starts; pure, whoever measures is an argument.

One argument after the other takes each of its values, and the best stays while the next one is tried: so a grid of 3, 3
and 2 values costs 9 starts instead of 18. What was measured once is not measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penstock_worker.tuning.grid import Coordinate


@dataclass(frozen=True)
class TuningPoint:
    """One way to start the engine, and what was measured of it."""

    arguments: tuple[str, ...]
    tokens_per_second: float | None = None
    """None: it did not start, or not work."""
    trouble: str | None = None
    load_seconds: float | None = None
    wake_seconds: float | None = None
    kv_tokens: int | None = None
    memory_bytes: int | None = None
    digest: str | None = None


Measure = Callable[[tuple[str, ...]], TuningPoint]
"""Starts the engine with these arguments, and ends it; what went wrong is in the point."""


def search(
    base: tuple[str, ...],
    grid: Sequence[Coordinate],
    measure: Measure,
    note: Callable[[TuningPoint], None],
    go_on: Callable[[], bool] = lambda: True,
) -> TuningPoint | None:
    """The fastest point met; None if none worked. Every point goes to `note` as soon as it is known, the base first.

    Before each point but the base `go_on` is asked; where it says no, that is the end.
    """
    known: dict[tuple[str, ...], TuningPoint] = {}

    def look(arguments: tuple[str, ...]) -> TuningPoint:
        if arguments not in known:
            known[arguments] = measure(arguments)
            note(known[arguments])
        return known[arguments]

    best = look(base)
    for coordinate in grid:
        start = best
        for value in coordinate.values:
            arguments = coordinate.turned(start.arguments, value)
            if arguments not in known and not go_on():
                return _working(best)
            best = faster(best, look(arguments))
    return _working(best)


def faster(one: TuningPoint, other: TuningPoint) -> TuningPoint:
    """The one with more tokens a second; the first if they are alike."""
    return other if (other.tokens_per_second or 0.0) > (one.tokens_per_second or 0.0) else one


def _working(point: TuningPoint) -> TuningPoint | None:
    return point if point.tokens_per_second else None
