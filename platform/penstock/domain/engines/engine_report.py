"""An engine report: what a gpu worker says of its engine with each load report, for people; nothing is decided by it.

It is bounded: some numbers, whatever the engine does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from penstock.domain.engines.engine_slots import EngineSlots, budget_words, parted

WINDOW_SECONDS: Final = 60.0
"""Rates and times to first token are those of the last minute."""


@dataclass(frozen=True)
class EngineReport:
    """One engine at one moment. Slots are its gate's, each for one sequence; None is what the engine does not say."""

    slots: int
    """What it runs at once, the room for waiting calls included."""
    most_lines: int
    """Batch lines that may be in it at most: the rest of its slots is kept for waiting calls."""
    calls: int
    """Slots that waiting calls hold."""
    lines: Mapping[str, int]
    """Slots that batch lines hold, by lane; calls of the tier `flex` are in lane flex."""
    waiting: Mapping[str, int]
    """Who waits for a slot: `calls`, and the lanes."""
    lines_held: bool = False
    """It said that it has enough: no line comes in."""
    trying: bool = False
    """Suspects of a death have it to themselves: nobody comes in."""
    kv_usage: float | None = None
    """Part of its KV cache in use, 0 to 1."""
    preemptions: int | None = None
    """Requests that it threw out of its cache, since it began."""
    prefix_hit_rate: float | None = None
    """Part of the prompt tokens that it looked up in its prefix cache and found there."""
    input_tokens_per_second: float | None = None
    output_tokens_per_second: float | None = None
    """Of calls and lines together, by its own counters."""
    ttft: tuple[int, ...] = ()
    """A latency histogram of the streamed realtime calls; empty without any."""

    def parted(self, budget: int, reason: str) -> EngineSlots:
        """Its slots, each counted once; `budget` and `reason` are the load report's."""
        why = "suspects" if self.trying else "held" if self.lines_held else reason
        return parted(
            total=self.slots,
            most_lines=self.most_lines,
            calls=self.calls,
            lines=self.lines,
            budget=0 if self.trying or self.lines_held else budget,
            why=budget_words(why),
        )

    def json(self) -> dict[str, Any]:
        """As it is kept."""
        return asdict(self)


def read(kept: Mapping[str, Any] | None) -> EngineReport | None:
    """The report of a row; None if there is none, or it is of code that says other things."""
    if not kept:
        return None
    known = {one.name for one in fields(EngineReport)}
    try:
        values = {name: value for name, value in kept.items() if name in known}
        return EngineReport(**values | {"ttft": tuple(kept.get("ttft", ()))})
    except TypeError:
        return None
