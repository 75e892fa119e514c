"""Charts over time as the server draws them: lines in an SVG of fixed size, and the same numbers as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from penstock.console import words

WIDTH: Final = 420
HEIGHT: Final = 170
_LEFT: Final = 52
_RIGHT: Final = 8
_TOP: Final = 8
_BOTTOM: Final = 22
_TICKS: Final = 3

Values = Sequence[float | None]


@dataclass(frozen=True)
class ChartLine:
    """One curve; where nothing was sampled it is broken."""

    name: str
    pieces: tuple[str, ...]
    """Each the points of a polyline."""
    latest: float | None
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class ChartTick:
    """A mark at an axis: where, in units, and what is written there."""

    at: float
    label: str


@dataclass(frozen=True)
class TimeChart:
    """One chart; `is_empty` if nothing at all was sampled."""

    title: str
    unit: str
    lines: tuple[ChartLine, ...]
    down: tuple[ChartTick, ...]
    along: tuple[ChartTick, ...]
    promise: float | None
    """Where the line of what was promised is."""
    rows: tuple[tuple[str, tuple[float | None, ...]], ...]
    """Each time with its values, the latest first."""
    words: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    bottom: int = HEIGHT - _BOTTOM
    right: int = WIDTH - _RIGHT

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to see."""
        return all(value is None for line in self.lines for value in line.values)


def time_chart(
    title: str, unit: str, times: Sequence[int], curves: Sequence[tuple[str, Values]], promise: float | None = None
) -> TimeChart:
    """Draw curves over the same times (Unix seconds), and a line at what was promised."""
    there = [value for _, values in curves for value in values if value is not None]
    top = nice(max([*there, promise or 0.0], default=0.0))
    span = max(1, times[-1] - times[0]) if times else 1

    def x(at: int) -> float:
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * (at - times[0]) / span, 1)

    def y(value: float) -> float:
        return round(_TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - value / top), 1)

    lines = tuple(
        ChartLine(
            name=name,
            pieces=tuple(_pieces([None if v is None else (x(at), y(v)) for at, v in zip(times, values, strict=True)])),
            latest=next((value for value in reversed(values) if value is not None), None),
            values=tuple(values),
        )
        for name, values in curves
    )
    shown = [times[round(i * (len(times) - 1) / _TICKS)] for i in range(_TICKS + 1)] if times else []
    pattern = "%H:%M" if span <= 90_000 else "%d %b %H:%M"
    labels = [f"{datetime.fromtimestamp(at, UTC):{pattern}}" for at in times]
    told = "; ".join(f"{one.name} {words.short(one.latest)} {unit}" for one in lines)
    return TimeChart(
        title=title,
        unit=unit,
        lines=lines,
        down=tuple(ChartTick(y(top * i / 2), words.short(top * i / 2)) for i in range(3)),
        along=tuple(ChartTick(x(at), f"{datetime.fromtimestamp(at, UTC):{_short(span)}}") for at in shown),
        promise=None if promise is None else y(promise),
        rows=tuple(zip(labels, zip(*(values for _, values in curves), strict=True), strict=True))[::-1],
        words=f"{title}: {told} at last",
    )


def nice(value: float) -> float:
    """The next of 1, 2, 5, 10, 20 … at or above a value."""
    if value <= 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(value))
    return float(next(step * size for step in (1, 2, 5, 10) if step * size >= value))


def _short(span: int) -> str:
    return "%H:%M" if span <= 90_000 else "%d %b"


def _pieces(points: Sequence[tuple[float, float] | None]) -> Iterator[str]:
    """Runs of points that are there; a point that is alone is a line of no length, which is drawn as a dot."""
    run: list[str] = []
    for point in [*points, None]:
        if point is not None:
            run.append(f"{point[0]:g},{point[1]:g}")
        elif run:
            yield " ".join(run if len(run) > 1 else run * 2)
            run = []
