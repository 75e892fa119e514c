"""Engine slots: who has each slot of an engine, and why the others are not to be had: the picture that people see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

BUDGET_WORDS: Final[Mapping[str, str]] = {
    "all": "every slot that batch lines may have is open to them",
    "knee": "more lines were tried, and brought no more tokens a second",
    "trying": "it is being tried whether fewer lines bring as many tokens a second",
    "suspects": "suspects of an engine's death are asked one by one, and nobody else comes in meanwhile",
    "held": "the engine said that it has enough for now",
    "no_calls": "nobody has called lately, so every slot is open to batch lines",
    "slo_ttft": "with more lines, waiting calls would not get their first token in the promised time",
    "slo_itl": "with more lines, waiting calls would not get their tokens as fast as promised",
    "probing": "more lines are let in step by step, while calls keep what they were promised",
    "kv": "the engine's KV cache is nearly full",
    "refused": "the engine refused more",
    "slow": "with more lines the engine answers slower",
}
"""Why a worker's budget stands where it stands, by the words of its budget loop."""


@dataclass(frozen=True)
class EngineSlots:
    """All slots of one engine: `total` is the sum of the others, each slot counted once."""

    total: int
    calls: int
    """Held by waiting calls."""
    lines: Mapping[str, int]
    """Held by batch lines, by lane."""
    free: int
    """The next batch line gets one of these."""
    closed: int
    """Free, but closed to batch lines by the budget or the gate."""
    reserved: int
    """Free, and kept for waiting calls."""
    closed_because: str | None
    """Why some are closed, in words; None if none is."""

    @property
    def used(self) -> int:
        """Those that somebody holds."""
        return self.calls + sum(self.lines.values())


def budget_words(reason: str) -> str:
    """What a reason means; one that is not known is said as it is."""
    return BUDGET_WORDS.get(reason, reason)


def parted(*, total: int, most_lines: int, calls: int, lines: Mapping[str, int], budget: int, why: str) -> EngineSlots:
    """Who has which slot: as penstock_worker/admission/gate.py lets in, with `budget` lines at most now."""
    inside = sum(lines.values())
    left = max(0, total - calls - inside)
    for_lines = min(left, max(0, most_lines - calls - inside))
    free = min(for_lines, max(0, budget - inside))
    closed = for_lines - free
    return EngineSlots(
        total=max(total, calls + inside),
        calls=calls,
        lines=dict(lines),
        free=free,
        closed=closed,
        reserved=left - for_lines,
        closed_because=why if closed else None,
    )
