"""Order: lines whose prompts begin alike are neighbours, long answers begin in time, and else it is the file's.

Prompts form a tree: lines that share a beginning are a branch, those of them that share a deeper one a branch of it.
The order walks through the tree, so a branch stays whole and an engine's prefix cache meets each beginning once. Where
it may choose, it takes first what has answers far longer than the mean, and then goes by the file: answers of mixed
lengths end one by one and each leaves its slot to the next, while a run of equal ones ends at once and leaves the
engine half empty until it is refilled (seen with longest first throughout: 75 of 128 running, again and again). Only
towards the end a line moves forward, as far as it must so that the engine does not run empty behind a straggler.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Places = NDArray[np.int32]
TWIN: Final = 255
"""What a line shares with the one before it if the two are the same request."""
_FAR_LONGER: Final = 4
_IN_TIME: Final = 1.5
"""A line should have so many times its own steps before the end: lengths are estimates, and steps are not alike."""


@dataclass(frozen=True)
class Beginnings:
    """Hashes of the beginnings of lines' prompts, those of all lines in one row; see formats/prefix.py."""

    hashes: NDArray[np.uint32]
    counts: NDArray[np.uint8]
    """How many each line has."""
    first: Numbers
    """Where each line's begin."""

    @classmethod
    def of(cls, hashes: array[int], counts: array[int]) -> Beginnings:
        """Over what a scan collected."""
        many = np.frombuffer(counts, dtype=np.uint8)
        return cls(np.frombuffer(hashes, dtype=np.uint32), many, np.cumsum(many, dtype=np.int64) - many)

    def at(self, lines: NDArray[np.signedinteger[Any]], level: int) -> NDArray[np.uint32]:
        """The hashes of one level, of lines that have it."""
        found: NDArray[np.uint32] = self.hashes[self.first[lines] + level]
        return found


def by_prefix(lines: Numbers, begin: Beginnings, longest: NDArray[np.uint32]) -> Numbers:
    """The lines, in the order of the tree. `longest` says whose answers are longer, in tokens or classes of them."""
    place = np.zeros(len(begin.counts), dtype=np.int32)  # where the line's branch begins in the order
    level, open_lines = 0, lines.astype(np.int32)
    while len(open_lines) > 1 and (has := begin.counts[open_lines] > level).any():
        open_lines = _placed(open_lines, has, place, begin, longest, level)
        level += 1
    order: Numbers = np.lexsort((lines, -longest[lines].astype(np.int32), place[lines]))
    return lines[order]


def _placed(
    open_lines: Places,
    has: NDArray[np.bool_],
    place: Places,
    begin: Beginnings,
    longest: NDArray[np.uint32],
    level: int,
) -> Places:
    """Give the branches of one level their places within those of the level above; the lines that may be parted on.

    Arrays of 4 bytes a line, and few of them at once: with a million lines they are what an io worker's memory is.
    """
    # Lines of one branch with equal hashes are a branch of it; whoever has none of this level stands alone.
    key = np.where(has, 0, open_lines.astype(np.int64) + 1)
    key[has] = -1 - begin.at(open_lines[has], level).astype(np.int64)
    ordered = np.lexsort((key, place[open_lines]))
    open_lines, key = open_lines[ordered], key[ordered]
    del ordered
    parent = place[open_lines]
    runs = np.flatnonzero(np.r_[True, (parent[1:] != parent[:-1]) | (key[1:] != key[:-1])]).astype(np.int32)
    del key
    sizes = np.diff(runs, append=np.int32(len(open_lines)))
    reach = np.maximum.reduceat(longest[open_lines], runs).astype(np.int32)
    first = np.minimum.reduceat(open_lines, runs)
    best = np.lexsort((first, -reach, parent[runs])).astype(np.int32)
    del first, reach
    before = np.cumsum(sizes[best], dtype=np.int32) - sizes[best]
    parents = parent[runs][best]
    before -= before[np.searchsorted(parents, parents)]
    begins = np.empty(len(runs), dtype=np.int32)
    begins[best] = parents + before
    place[open_lines] = np.repeat(begins, sizes)
    return open_lines[np.repeat(sizes > 1, sizes)]


def classes(longest: NDArray[np.uint32], lines: Numbers) -> NDArray[np.uint32]:
    """0 for answers of up to four times the mean of these lines, and one more for each four times again."""
    mean = max(1.0, float(longest[lines].mean()))
    times: NDArray[np.float64] = np.log(np.maximum(longest / mean, 1.0)) / np.log(_FAR_LONGER)
    return np.ceil(times - 1.0).clip(0).astype(np.uint32)


def in_time(ordered: Numbers, longest: NDArray[np.uint32], shares: NDArray[np.uint8], at_once: int) -> Numbers:
    """The same, with lines that would come in after all others moved forward, to where enough work follows.

    An engine makes about one token of each of its lines in a step, so a line is late if less than its own length times
    the lines at once follows. It moves if that costs no more of `shares` than all the lines there have in common, or if
    it is far longer than they are.
    """
    answers = longest[ordered].astype(np.float64)
    begins = answers.cumsum() - answers
    latest = answers.sum() - _IN_TIME * at_once * answers
    (late,) = np.nonzero(latest < begins)
    if not len(late):
        return ordered
    end = int(np.searchsorted(begins, latest[late].min()))
    common = shares[end + 1 :].min(initial=TWIN)
    own = np.maximum(shares[end:], np.r_[shares[end + 1 :], 0])
    moves = (own <= common) | (answers[end:] > _FAR_LONGER * answers[end:].mean())
    due = np.where(moves, np.minimum(begins, latest)[end:], begins[end:])
    return np.concatenate((ordered[:end], ordered[end:][np.argsort(due, kind="stable")]))


def shared(ordered: Numbers, begin: Beginnings) -> NDArray[np.uint8]:
    """How many beginnings each line in the order shares with the one before it."""
    found = np.zeros(len(ordered), dtype=np.uint8)
    level, places = 0, np.arange(1, len(ordered))
    while len(places):
        places = places[np.minimum(begin.counts[ordered[places]], begin.counts[ordered[places - 1]]) > level]
        places = places[begin.at(ordered[places], level) == begin.at(ordered[places - 1], level)]
        level += 1
        found[places] = level
    return found


def leaders(prints: NDArray[np.uint64]) -> Numbers:
    """For each line the first one with its fingerprint: itself if it has none (0), or is the first."""
    found = np.arange(len(prints))
    (having,) = np.nonzero(prints)
    if len(having):
        ordered = having[np.argsort(prints[having], kind="stable")]
        runs = np.flatnonzero(np.r_[True, prints[ordered][1:] != prints[ordered][:-1]])
        found[ordered] = np.repeat(ordered[runs], np.diff(np.r_[runs, len(ordered)]))
    return found


def with_followers(ordered: Numbers, leader: Numbers, members: Numbers) -> Numbers:
    """The order of leaders, and behind each of them its followers among the members, in file order."""
    if len(ordered) == len(members):
        return ordered
    place = np.zeros(len(leader), dtype=np.int64)
    place[ordered] = np.arange(len(ordered))
    order: Numbers = np.lexsort((members, place[leader[members]]))
    return members[order]
