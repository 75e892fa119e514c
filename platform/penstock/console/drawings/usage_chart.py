"""The chart of usage: a bar for each span of time, in parts, as rectangles that the server reckons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock.console.drawings.usage_sums import UsageSum

WIDTH: Final = 1000
HEIGHT: Final = 200
_GAP: Final = 0.2
"""Part of a bar's room that stays empty."""
PARTS: Final = (
    ("input", "fresh_input", "input, computed"),
    ("cached", "cached_tokens", "input, cached"),
    ("output", "fresh_output", "output, generated"),
    ("reused", "reused_tokens", "output, reused"),
)
"""From below: class of the rectangle, what it counts, and in words."""


@dataclass(frozen=True)
class ChartBar:
    """A rectangle of one part of one span."""

    part: str
    x: float
    y: float
    width: float
    height: float


def bars(spans: Sequence[UsageSum]) -> list[ChartBar]:
    """All rectangles; the tallest bar takes the height."""
    most = max((one.tokens for one in spans), default=0)
    if not most:
        return []
    room, found = WIDTH / len(spans), []
    for place, one in enumerate(spans):
        y = float(HEIGHT)
        for part, counted, _ in PARTS:
            height = HEIGHT * getattr(one, counted) / most
            if height > 0:
                y -= height
                x, width = place * room + room * _GAP / 2, room * (1 - _GAP)
                found.append(ChartBar(part, round(x, 2), round(y, 2), round(width, 2), round(height, 2)))
    return found
