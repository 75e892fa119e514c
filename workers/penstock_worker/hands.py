"""Hands: a worker's places for slices in work. Not Celery's threads: an urgent slice always finds one free."""

from __future__ import annotations

import threading
from collections import Counter

from penstock.domain.lane import LANES, MOST_HANDS, Lane


class Hands:
    """Counts hands by lane. The limits nest: flex may hold 2, flex and standard together 3, all together 4."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: Counter[Lane] = Counter()
        self._owed: Counter[Lane] = Counter()

    def take(self, lane: Lane) -> bool:
        """Take a hand for a slice of this lane or a more urgent one; False if the lane has none left now."""
        with self._lock:
            free = self._free(lane)
            if free:
                self._held[lane] += 1
            return free

    def _free(self, lane: Lane) -> bool:
        """A hand is free if every limit that counts this lane has room."""
        return all(
            sum(self._held[other] for other in LANES[limit.rank :]) < MOST_HANDS[limit]
            for limit in LANES[: lane.rank + 1]
        )

    def turn(self, taken: Lane, lane: Lane) -> None:
        """A hand that was taken for one lane holds a slice of a more urgent one."""
        with self._lock:
            self._held[taken] -= 1
            self._held[lane] += 1

    def give(self, lane: Lane) -> None:
        """Give a hand back."""
        with self._lock:
            self._held[lane] -= 1

    def owe(self, lane: Lane) -> None:
        """Remember a hint that found no hand, or no engine; more than hands there are would be no use."""
        with self._lock:
            self._owed[lane] = min(self._owed[lane] + 1, MOST_HANDS[lane])

    def due(self) -> list[Lane]:
        """Hints to say again now that a hand may be free: at most one for each lane that has one."""
        with self._lock:
            lanes = [lane for lane in LANES if self._owed[lane] and self._free(lane)]
            for lane in lanes:
                self._owed[lane] -= 1
            return lanes

    @property
    def held(self) -> dict[Lane, int]:
        """Hands in use, by lane."""
        with self._lock:
            return dict(self._held)
