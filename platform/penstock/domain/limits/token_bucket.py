"""A token bucket: holds a minute's worth, fills evenly, may be in debt for what is known only afterwards."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class TokenBucket:
    """`per_minute` units; `level` of them are there at `at` (seconds on any clock)."""

    per_minute: int
    level: float
    at: float

    @classmethod
    def full(cls, per_minute: int, now: float) -> TokenBucket:
        """One that nobody has taken from."""
        return cls(per_minute, float(per_minute), now)

    def take(self, owed: int, wanted: int, now: float) -> int:
        """Pay what is owed, which may leave a debt, then take what is wanted as far as it is there; how much."""
        self.level = min(self.per_minute, self.level + max(0.0, now - self.at) * self.per_minute / 60) - owed
        self.at = now
        taken = max(0, min(wanted, int(self.level)))
        self.level -= taken
        return taken
