"""What `make bench-switching` plays, with its seeds, bounds and targets: committed before the policy was tuned on it.

Sizes come from the trace's quantiles. A version's share of the requests follows Zipf's law. The load is exact: work at
each version's speed over the span, so 1.0 is all that the pool could do if every version were always awake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from bench import trace
from bench.trace import Trace

from penstock.domain.work.lane import Lane

T = TypeVar("T")

SEEDS: Final = tuple(range(1, 11))
COUNTS: Final = (4, 8, 15)
LOADS: Final = (0.5, 0.7, 0.85)
HOURS: Final = 4.0

BOUNDS: Final[Mapping[Lane, float]] = {Lane.PRIORITY: 600.0, Lane.STANDARD: 3_600.0}
"""Seconds that a lane's work may be without its version; flex has its deadline alone."""
CALL_BOUND: Final = 60.0
"""Seconds that a waiting call may wait, and the switch."""
SHARE_LOST: Final = 0.1
"""Target: at most this part of all time is switching, in sum of the cells where `has_room`; and the plan's quantum."""


@dataclass(frozen=True)
class Engine:
    """How long a switch takes, and how fast a version of middle size is."""

    name: str
    switch_seconds: float
    tokens_per_second: float
    look_seconds: float
    """The pool decides so often, and at each event."""


ENGINES: Final = (
    # From stop to first token 43 s, some 40 of them imports; prompts and answers together.
    Engine("vLLM on a CPU, restart", 45.0, 2_700.0, 5.0),
    # Ready in 0.35 s with a tiny model; the rest is reading a real one.
    Engine("llama.cpp, restart", 5.0, 1_350.0, 1.0),
    Engine("vLLM on a GPU, sleep", 2.0, 20_000.0, 1.0),
)

_ZIPF: Final = 1.0
_SPEEDS: Final = (0.5, 1.0, 2.0)
"""Of versions, drawn: smaller models are faster."""
_JOBS: Final = 0.6
"""So many of what comes are jobs, the others batches of files."""
_ROWS: Final[Mapping[bool, tuple[tuple[int, float], ...]]] = {
    True: ((8, 0.6), (32, 0.4)),
    False: ((128, 0.6), (512, 0.3), (2_048, 0.1)),
}
"""Rows of a job (True) and of a batch, and how many have so many."""
_LANES: Final[Mapping[bool, tuple[tuple[Lane, float], ...]]] = {
    True: ((Lane.PRIORITY, 0.5), (Lane.STANDARD, 0.5)),
    False: ((Lane.PRIORITY, 0.1), (Lane.STANDARD, 0.45), (Lane.FLEX, 0.45)),
}
_WINDOWS: Final[Mapping[Lane, tuple[float, float]]] = {
    Lane.PRIORITY: (900.0, 3_600.0),
    Lane.STANDARD: (3_600.0, 14_400.0),
    Lane.FLEX: (7_200.0, 28_800.0),
}
"""Shortest and longest time that a sender gives, in seconds; never less than three times the work itself."""
_SESSIONS_PER_HOUR: Final = 4.0
"""Of waiting calls, to the on-demand versions of the pool together: every third one."""
_SESSION_SECONDS: Final = 120.0
_CALL_GAP_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Cell:
    """One place of the table."""

    engine: Engine
    versions: int
    load: float

    @property
    def has_room(self) -> bool:
        """True if all versions in turn, each for the plan's quantum, keep every bound."""
        quantum = self.engine.switch_seconds / SHARE_LOST
        return self.versions * (self.engine.switch_seconds + quantum) <= min(BOUNDS.values()) and quantum <= CALL_BOUND


@dataclass(frozen=True)
class Batch:
    """Lines of one version that came together: a batch or a job; they expire at their deadline, as in production."""

    number: int
    at: float
    version: str
    lane: Lane
    window: float
    tokens: int

    @property
    def due(self) -> float:
        """The second of its deadline."""
        return self.at + self.window


@dataclass(frozen=True)
class Call:
    """A waiting call to an on-demand version."""

    at: float
    version: str
    tokens: int


@dataclass(frozen=True)
class Arrivals:
    """All that comes in one run, in the order in which it comes."""

    span: float
    """Seconds in which it comes."""
    batches: tuple[Batch, ...]
    calls: tuple[Call, ...]
    tokens_per_second: Mapping[str, float]
    """Of each version."""


def cells() -> list[Cell]:
    """All of the table."""
    return [Cell(engine, versions, load) for engine in ENGINES for versions in COUNTS for load in LOADS]


def drawn(rows: Trace, cell: Cell, seed: int, hours: float = HOURS) -> Arrivals:
    """What comes to a pool of this cell; the same seed draws the same, whichever the policy."""
    chance = np.random.default_rng([seed, cell.versions])
    names = [f"model-{number:02d}" for number in range(1, cell.versions + 1)]
    popular = 1.0 / np.arange(1, cell.versions + 1) ** _ZIPF
    popular /= popular.sum()
    speeds = dict(zip(names, chance.choice(_SPEEDS, size=cell.versions).tolist(), strict=True))
    sizes = np.maximum((rows.prompts + rows.answers) * trace.SCALE, 2.0)
    span = hours * 3_600.0

    lots: list[tuple[str, bool, int]] = []
    work = 0.0
    while work < cell.load * span * cell.engine.tokens_per_second:
        version, is_job = str(chance.choice(names, p=popular)), bool(chance.random() < _JOBS)
        tokens = int(chance.choice(sizes, size=_one(chance, _ROWS[is_job])).sum())
        lots.append((version, is_job, tokens))
        work += tokens / speeds[version]
    # The last one overshoots: the pool's speed makes the load exact.
    base = work / span / cell.load
    rates = {version: base * speed for version, speed in speeds.items()}

    if rows.seconds is None:
        times = np.sort(chance.random(len(lots))) * span  # Poisson arrivals, given how many
    else:
        came = rows.arrivals(seed, 1.2 * len(lots) / span, span)
        times = np.sort(chance.choice(came, size=len(lots)))
    batches = []
    for number, (at, (version, is_job, tokens)) in enumerate(zip(times, lots, strict=True)):
        lane = _one(chance, _LANES[is_job])
        window = max(chance.uniform(*_WINDOWS[lane]), 3.0 * tokens / rates[version])
        batches.append(Batch(number, float(at), version, lane, float(window), tokens))

    calls = []
    for begins in np.cumsum(chance.exponential(3_600.0 / _SESSIONS_PER_HOUR, size=int(20 * hours) + 20)):
        version = str(chance.choice(names[1::3]))
        gaps = chance.exponential(_CALL_GAP_SECONDS, size=60)
        for at in begins + np.cumsum(gaps):
            if at < begins + _SESSION_SECONDS and at < span:
                calls.append(Call(float(at), version, int(chance.choice(sizes))))
    return Arrivals(span, tuple(batches), tuple(sorted(calls, key=lambda call: call.at)), rates)


def _one(chance: np.random.Generator, table: Sequence[tuple[T, float]]) -> T:
    """One of the table's left column, as often as its right column says."""
    return table[int(chance.choice(len(table), p=[share for _, share in table]))][0]
