"""Cost: what recorded lines cost, in picounits (10^-12) of the currency, which are whole numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What recorded lines cost, in picounits: by their tokens, and by the time that their engine took for them."""

    gpu_microseconds: int = 0
    tokens: int = 0
    gpu: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.gpu_microseconds + other.gpu_microseconds, self.tokens + other.tokens, self.gpu + other.gpu)
