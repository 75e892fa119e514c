"""The picture of an engine's slots: each slot one cell, whoever has it by colour and letter, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

CELL: Final = 16
"""Units of a cell, its gap included."""
_COLUMNS: Final = 32
_MANY: Final = 512
"""From here on a row is twice as long."""


@dataclass(frozen=True)
class SlotKind:
    """Who may have a slot; `key` is also the name of its pattern."""

    key: str
    letter: str
    words: str


KINDS: Final = (
    SlotKind("calls", "C", "waiting calls"),
    SlotKind("priority", "P", "lines of lane priority"),
    SlotKind("standard", "S", "lines of lane standard"),
    SlotKind("flex", "F", "lines of lane flex"),
    SlotKind("free", "", "free for the next line"),
    SlotKind("closed", "×", "closed to lines for now"),
    SlotKind("reserved", "R", "kept for calls"),
)


@dataclass(frozen=True)
class SlotRun:
    """Cells of one kind side by side, in units."""

    kind: str
    x: int
    y: int
    width: int


@dataclass(frozen=True)
class SlotPicture:
    """All slots of one engine."""

    width: int
    height: int
    runs: tuple[SlotRun, ...]
    counts: tuple[tuple[SlotKind, int], ...]
    """Every kind, with how many slots it has."""
    words: str


def slots_picture(slots: Mapping[str, Any]) -> SlotPicture:
    """The picture of what the API says of an engine's slots; there are as few shapes as rows and kinds."""
    counts = tuple((kind, int(slots["lines"].get(kind.key, slots.get(kind.key, 0)))) for kind in KINDS)
    total = sum(number for _, number in counts)
    columns = max(1, min(total, _COLUMNS if total <= _MANY else 2 * _COLUMNS))
    told = ", ".join(f"{number} {kind.words}" for kind, number in counts if number)
    return SlotPicture(
        width=columns * CELL,
        height=max(1, -(-total // columns)) * CELL,
        runs=tuple(_runs(counts, columns)),
        counts=counts,
        words=f"{total} slots: {told}" if told else "no slots",
    )


def _runs(counts: tuple[tuple[SlotKind, int], ...], columns: int) -> Iterator[SlotRun]:
    at = 0
    for kind, number in counts:
        while number:
            row, column = divmod(at, columns)
            here = min(number, columns - column)
            yield SlotRun(kind.key, column * CELL, row * CELL, here * CELL)
            at, number = at + here, number - here
