"""Which rows are asked: all, the first, or some that are spread over the table."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class RowChoice:
    """A rule that says of each row by its number whether it is asked; of the same table always the same rows."""

    rows: int
    """How many rows there are to choose from."""
    sample: int | None = None
    """So many, one from each of as many equal parts of the table; None: all."""
    seed: int = 0

    @classmethod
    def of(cls, count: int, limit: int | None, sample: int | None, seed: int) -> RowChoice:
        """Of a table of so many rows; with a limit the first of them are all there is."""
        rows = count if limit is None else min(count, limit)
        return cls(rows, sample if sample is not None and sample < rows else None, seed)

    @property
    def count(self) -> int:
        """How many rows are chosen."""
        return self.rows if self.sample is None else self.sample

    def takes(self, number: int) -> bool:
        """Whether the row of this number is asked; the first is 0."""
        if number >= self.rows:
            return False
        if self.sample is None:
            return True
        part = ((number + 1) * self.sample - 1) // self.rows
        return number == _drawn(self.rows, self.sample, self.seed, part)


@lru_cache(maxsize=4)
def _drawn(rows: int, sample: int, seed: int, part: int) -> int:
    begin, end = part * rows // sample, (part + 1) * rows // sample
    return random.Random(f"{seed} {part}").randrange(begin, end)
