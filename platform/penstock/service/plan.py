"""Plans: the order of the work, and its cuts into slices.

The order is file order by model. The plan copy holds the input's lines in that order, so that a slice is one byte
range of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from penstock.blobs.store import Blobs
from penstock.domain.slice import Cut
from penstock.formats import plan
from penstock.service.scan import Scan, line_at
from penstock.settings import Settings


def order(found: Scan) -> np.ndarray:
    """Indexes of the good lines in the order of work."""
    return np.argsort(np.frombuffer(found.model_of, dtype=np.uint16), kind="stable")


def write(path: Path, found: Scan, blobs: Blobs, key: str, settings: Settings) -> list[Cut]:
    """Write the plan copy and cut it; a slice has one model, and at most so many lines and estimated tokens."""
    cuts: list[Cut] = []
    with path.open("rb") as file, blobs.writer(key) as copy:
        offset = 0
        for model, members in _runs(found, settings):
            start = offset
            for index in members:
                offset += copy.write(plan.frame(found.numbers[index], line_at(file, found, index)))
            numbers = [found.numbers[index] for index in members]
            cuts.append(
                Cut(
                    model=model,
                    plan_offset=start,
                    plan_bytes=offset - start,
                    lines=len(members),
                    first_line=min(numbers),
                    last_line=max(numbers),
                    tokens=sum(found.tokens[index] for index in members),
                )
            )
    return cuts


def _runs(found: Scan, settings: Settings) -> Iterator[tuple[str, list[int]]]:
    """The order, cut where the model changes or a slice is full."""
    members: list[int] = []
    tokens = 0
    for index in map(int, order(found)):
        full = len(members) >= settings.slice_lines or tokens + found.tokens[index] > settings.slice_tokens
        if members and (full or found.model_of[index] != found.model_of[members[0]]):
            yield found.models[found.model_of[members[0]]], members
            members, tokens = [], 0
        members.append(index)
        tokens += found.tokens[index]
    if members:
        yield found.models[found.model_of[members[0]]], members
