"""Jobs of the order benchmark, and what an ideal and a plain scheduler make of them: EDF and first come, first served.

Rows of a trace are gathered into jobs, as tenants do who send what they have every now and then.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from bench.trace import Trace

from penstock.domain.work.lane import Lane

T = TypeVar("T")

SLICE_TOKENS: Final = 60_000
_SIZES: Final = ((8, 0.55), (32, 0.33), (128, 0.12))
"""Rows of a job, and how many of the jobs have so many."""
_LANES: Final = ((Lane.PRIORITY, 0.2), (Lane.STANDARD, 0.4), (Lane.FLEX, 0.4))
_WINDOWS: Final[Mapping[Lane, tuple[float, float]]] = {
    Lane.PRIORITY: (60, 300),
    Lane.STANDARD: (120, 900),
    Lane.FLEX: (600, 3_600),
}
"""The shortest and longest window of each lane's jobs, in seconds."""
TENANTS: Final = tuple(f"tenant-{letter}" for letter in "abcdef")


@dataclass(frozen=True)
class Job:
    """What a tenant sends at a second of the simulation, and by when it wants it."""

    number: int
    at: float
    tenant: str
    lane: Lane
    window: float
    slices: tuple[int, ...]
    """Tokens of each."""

    @property
    def tokens(self) -> int:
        """Of all its slices."""
        return sum(self.slices)

    @property
    def due(self) -> float:
        """The second of its deadline."""
        return self.at + self.window


def gathered(trace: Trace, seed: int, hours: float = 1.0) -> list[Job]:
    """Jobs made of the trace's rows, in the order in which they come; lanes, tenants and windows are drawn."""
    chance = random.Random(seed)
    rows = trace.prompts + trace.answers
    rate = len(rows) / 3_600.0
    times = trace.seconds if trace.seconds is not None else trace.arrivals(seed, rate, 3_600.0 * hours)
    jobs: list[Job] = []
    row = 0
    while row < min(len(times), len(rows)):
        size = _drawn(chance, _SIZES)
        part = [int(tokens) for tokens in rows[row : row + size]]
        at = float(times[min(row + size, len(times), len(rows)) - 1])
        lane = _drawn(chance, _LANES)
        window = chance.uniform(*_WINDOWS[lane])
        jobs.append(Job(len(jobs), at, chance.choice(TENANTS), lane, window, cut(part)))
        row += size
    return jobs


def mixed(seed: int, rate: float, *, count: int = 30, load: float = 0.9, tenants: int = 1) -> list[Job]:
    """So many jobs of one lane with mixed sizes and deadlines, which come at random at this load."""
    chance = random.Random(seed)
    sizes = [chance.choice((5_000, 20_000, 60_000, 180_000)) for _ in range(count)]
    gap = sum(sizes) / count / rate / load
    at, jobs = 0.0, []
    for number, tokens in enumerate(sizes):
        at += chance.expovariate(1 / gap)
        window = tokens / rate + chance.uniform(2, 12) * gap
        # In some twenty pieces at least: a slice that runs is not stopped for one that is more urgent.
        pieces = cut([1_000] * (tokens // 1_000), most=10_000)
        jobs.append(Job(number, at, TENANTS[number % tenants], Lane.STANDARD, window, pieces))
    return jobs


def cut(rows: Sequence[int], most: int = SLICE_TOKENS) -> tuple[int, ...]:
    """Slices of at most so many tokens each (or one row)."""
    slices = [0]
    for tokens in rows:
        if slices[-1] and slices[-1] + tokens > most:
            slices.append(0)
        slices[-1] += tokens
    return tuple(slices)


def first_come(jobs: Sequence[Job], workers: int, rate: float) -> dict[int, float]:
    """When each job ends if its slices are run in the order in which they came, by workers of this rate each."""
    free = [0.0] * workers
    ended: dict[int, float] = {}
    for job in jobs:
        for tokens in job.slices:
            start = max(job.at, heapq.heappop(free))
            heapq.heappush(free, start + tokens / rate)
            ended[job.number] = max(ended.get(job.number, 0.0), start + tokens / rate)
    return ended


def ideal(jobs: Sequence[Job], rate: float) -> dict[int, float]:
    """When each job ends on one server of this rate that always runs the earliest deadline and switches for free.

    No order meets all deadlines if this one doesn't (Liu and Layland 1973; Dertouzos 1974).
    """
    coming, waiting, ended = sorted(jobs, key=lambda job: job.at), [], {}
    left = {job.number: float(job.tokens) for job in jobs}
    now, next_ = 0.0, 0
    while len(ended) < len(jobs):
        while next_ < len(coming) and coming[next_].at <= now:
            heapq.heappush(waiting, (coming[next_].due, coming[next_].number))
            next_ += 1
        until = coming[next_].at if next_ < len(coming) else float("inf")
        if not waiting:
            now = until
            continue
        number = waiting[0][1]
        done = now + left[number] / rate
        if done <= until:
            heapq.heappop(waiting)
            now = ended[number] = done
        else:
            left[number] -= (until - now) * rate
            now = until
    return ended


def _drawn(chance: random.Random, table: Sequence[tuple[T, float]]) -> T:
    return chance.choices([value for value, _ in table], [weight for _, weight in table])[0]
