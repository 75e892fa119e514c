"""Cost: what recorded lines cost, in picounits (10^-12) of the currency, which are whole numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Savings:
    """What lines would have cost more, in picounits, by what spared it."""

    prefix: int = 0
    """The engine's prefix cache."""
    equal: int = 0
    """Equal lines that were asked once."""
    shared: int = 0
    """The shared cache."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.prefix + self.equal + self.shared


@dataclass(frozen=True)
class Cost:
    """What recorded lines cost, in picounits: by their tokens, and by the time that their engine took for them."""

    gpu_microseconds: int = 0
    tokens: int = 0
    gpu: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.gpu_microseconds + other.gpu_microseconds, self.tokens + other.tokens, self.gpu + other.gpu)
