"""Suspicion: which lines may have killed an engine, and how each is asked next.

A line that was in flight when an engine died is a suspect. What is known of it is counted as `deaths`:

    1  in flight with many              asked again with at most seven other suspects, nothing else in the engine
    2  in flight with seven at most     asked alone
    3  in flight alone, once            asked alone
    4  in flight alone, twice           asked no more: it ends as engine_crash

So a line that kills engines costs at most four of them, and no line ends for a death that it was not alone at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

FEW: Final = 8
ALONE_DEATHS: Final = 2
GUILTY_DEATHS: Final = 4
CRASHES_OF_ALL: Final = 2
"""A slice that was reaped so often may hold what takes worker and engine down at once: all its lines are suspect."""


@dataclass(frozen=True)
class Trial:
    """How the lines of one claim are asked: not at all, in these groups one after the other, or freely."""

    guilty: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    free: tuple[int, ...]


def trial(remaining: Sequence[int], suspects: Mapping[int, int], crashes: int) -> Trial:
    """Sort the lines that remain of a slice, those that nearly stand convicted first; order is kept within a sort.

    `suspects` are deaths by line number, `crashes` how often the slice was reaped.
    """
    least = 1 if crashes >= CRASHES_OF_ALL else 0
    deaths = {line: max(least, suspects.get(line, 0)) for line in remaining}
    guilty = tuple(line for line in remaining if deaths[line] >= GUILTY_DEATHS)
    alone = sorted(
        (line for line in remaining if ALONE_DEATHS <= deaths[line] < GUILTY_DEATHS),
        key=deaths.__getitem__,
        reverse=True,
    )
    few = [line for line in remaining if deaths[line] == 1]
    groups = [(line,) for line in alone] + [tuple(few[at : at + FEW]) for at in range(0, len(few), FEW)]
    return Trial(guilty, tuple(groups), tuple(line for line in remaining if not deaths[line]))
