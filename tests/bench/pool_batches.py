"""The arrivals of `make switching`: twelve batches of three models in turn, and calls to one that is woken for them."""

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
    Arrival(0, SEED_ONE, "standard", 60),
    Arrival(5, SEED_TWO, "standard", 60),
    Arrival(10, LLAMA, "standard", 60),
    Arrival(15, SEED_ONE, "flex", 40),
    Arrival(20, SEED_TWO, "priority", 20),
    Arrival(25, LLAMA, "standard", 40),
    Arrival(30, SEED_ONE, "standard", 60),
    Arrival(35, SEED_TWO, "flex", 40),
    Arrival(40, LLAMA, "flex", 60),
    Arrival(45, SEED_ONE, "standard", 40),
    Arrival(50, SEED_TWO, "standard", 60),
    Arrival(55, LLAMA, "priority", 20),
)
CALLS: Final = (20.0, 80.0, 200.0)
"""Seconds after the first batch at which somebody calls the last model, and waits."""
