"""The arrivals of `make switching`: twelve batches of three models in turn, and calls to one that is woken for them.

A batch is some ten seconds of work, half of what a start of vLLM takes: where all that waits is answered within a
moment of a start, every policy empties every queue at each of its turns, and there is nothing to compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Arrival:
    """A batch."""

    at_seconds: float
    """After the first one."""
    model: str
    lane: str
    lines: int


SEED_ONE: Final = "seed-one"
SEED_TWO: Final = "seed-two"
LLAMA: Final = "llama"
MODELS: Final = (SEED_ONE, SEED_TWO, LLAMA)
"""Two of vLLM's, whose weights differ by their seed, and one of llama.cpp's; one of them is awake."""

BATCHES: Final = (
    Arrival(0, SEED_ONE, "standard", 2_400),
    Arrival(5, SEED_TWO, "standard", 2_400),
    Arrival(10, LLAMA, "standard", 600),
    Arrival(15, SEED_ONE, "flex", 1_600),
    Arrival(20, SEED_TWO, "priority", 800),
    Arrival(25, LLAMA, "standard", 400),
    Arrival(30, SEED_ONE, "standard", 2_400),
    Arrival(35, SEED_TWO, "flex", 1_600),
    Arrival(40, LLAMA, "flex", 600),
    Arrival(45, SEED_ONE, "standard", 1_600),
    Arrival(50, SEED_TWO, "standard", 2_400),
    Arrival(55, LLAMA, "priority", 200),
)
CALLS: Final = (20.0, 80.0, 200.0)
"""Seconds after the first batch at which somebody calls the last model, and waits."""
