"""A model of what holders may do, kept in Python beside the database: which lease is current, and what is recorded.

It knows nothing of SQL. Where it and the database disagree, one of them is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from uuid import UUID

from store.world import remaining

from penstock.domain.work.batch import Batch
from penstock.domain.work.fold_claim import FoldClaim
from penstock.domain.work.holder import Holder
from penstock.domain.work.slice import Claim


@dataclass
class Person:
    """A process that holds leases; `beaten` is when it beat last, on the model's clock."""

    holder: Holder
    beaten: int


@dataclass
class Held:
    """A lease as its holder knows it, and whether it is still the one that counts."""

    lease: int
    holder: Holder
    opened: int
    nonce: UUID
    batch: str
    current: bool = True
    lapsed: bool = False


@dataclass
class Slice(Held):
    """A lease of a slice, with what was sent under it."""

    claim: Claim = None  # type: ignore[assignment]
    settled: bool = False
    sent: dict[int, tuple[tuple[int, ...], str | None]] = field(default_factory=dict)
    """Lines and blob by number; what a doomed blob kept from being recorded was not sent."""
    accepted: set[int] = field(default_factory=set)

    @property
    def left(self) -> list[int]:
        """Lines that this holder has not sent yet."""
        sent = {line for lines, _ in self.sent.values() for line in lines}
        return [line for line in remaining(self.claim) if line not in sent]


@dataclass
class Task(Held):
    """A lease of a batch's validation or assembly."""

    found: Batch = None  # type: ignore[assignment]
    kind: str = ""


@dataclass
class Folding(Held):
    """A lease of a fold, with what was decided under it."""

    fold: FoldClaim = None  # type: ignore[assignment]
    asked: dict[int, list[int]] | None = None
    """Later members that were asked for lines, if they were."""
    settled: bool = False
    seq: int = 0


class Model:
    """All leases that were ever opened, and the lines that were recorded under them."""

    def __init__(self) -> None:
        self._clock = count(1)
        self.workers: list[Person] = []
        self.helpers: list[Person] = []
        self.slices: list[Slice] = []
        self.tasks: list[Task] = []
        self.folds: list[Folding] = []
        self.recorded: dict[int, dict[int, bool]] = {}
        self.suspects: dict[tuple[int, int], tuple[int, int | None]] = {}

    def now(self) -> int:
        """A time later than every one before."""
        return next(self._clock)

    @property
    def held(self) -> list[Held]:
        """Leases of all kinds."""
        return [*self.slices, *self.tasks, *self.folds]

    def current(self) -> set[int]:
        """Leases that count."""
        return {held.lease for held in self.held if held.current}

    def lose(self, *lost: Held) -> None:
        """These leases count no more; what their holders were trying is tried no more."""
        for held in lost:
            held.current = False
            for suspect, (deaths, trial) in self.suspects.items():
                if trial == held.lease:
                    self.suspects[suspect] = (deaths, None)

    def record(self, held: Slice, lines: tuple[int, ...], failed: bool) -> None:
        """Lines were recorded: each once, whoever sends it."""
        self.add(held.claim.slice, lines, failed)

    def add(self, slice: int, lines: tuple[int, ...], failed: bool) -> None:
        """The same, by the slice."""
        known = self.recorded.setdefault(slice, {})
        assert not known.keys() & set(lines), "a line is recorded twice"
        known.update(dict.fromkeys(lines, failed))

    def note(self, held: Slice, lines: list[int]) -> None:
        """These lines are about to be asked on trial."""
        for line in lines:
            deaths, _ = self.suspects.get((held.claim.slice, line), (1, None))
            self.suspects[held.claim.slice, line] = (deaths, held.lease)

    def charge(self, slice: int, lines: list[int]) -> None:
        """One more engine death for each of these lines; four are the most that are counted."""
        for line in lines:
            deaths, _ = self.suspects.get((slice, line), (0, None))
            self.suspects[slice, line] = (min(4, deaths + 1), None)

    def deaths(self, slice: int) -> dict[int, int]:
        """What is known of a slice's suspects."""
        return {line: deaths for (at, line), (deaths, _) in self.suspects.items() if at == slice}

    def forget(self, kept: set[int], swept: set[int]) -> None:
        """Only these leases are still known, and these slices' segments and suspects are gone."""
        self.slices = [held for held in self.slices if held.lease in kept and held.claim.slice not in swept]
        self.tasks = [task for task in self.tasks if task.lease in kept]
        self.folds = [one for one in self.folds if one.lease in kept and one.fold.claim.slice not in swept]
        self.recorded = {slice: lines for slice, lines in self.recorded.items() if slice not in swept}
        self.suspects = {at: known for at, known in self.suspects.items() if at[0] not in swept}

    def reap(self, reaped: list[Held]) -> None:
        """Silent holders lost these; what they had on trial is charged."""
        for held in reaped:
            if isinstance(held, Slice):
                trying = [line for (slice, line), (_, trial) in self.suspects.items() if trial == held.lease]
                self.charge(held.claim.slice, trying)
        self.lose(*reaped)
