"""Batch estimates: what a batch will take, from a sample of its lines that is fair to short and long ones.

The sample's points are spread evenly over the file's bytes, so a line is met in proportion to its length, and each
that is met stands for 1/length of the bytes between two points (Hansen and Hurwitz, 1943: probability proportional to
size, the estimate of a sum is unbiased whatever lengths the lines have). Tokens go with bytes, so it is also a precise
one. A small file is looked at whole: then each line stands for itself.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

InputBasis = Literal["tokenizer", "measured", "assumed"]
OutputBasis = Literal["measured", "limits", "none"]

_ERRORS: Final = 2.0
"""Standard errors of a sample's sum to each side: 95 of 100 such ranges hold the truth."""

# How far bytes over bytes a token may be off; a choice, made after what other prompts of the same model gave.
INPUT_SLACK: Final[dict[InputBasis, tuple[float, float]]] = {
    "tokenizer": (1.0, 1.0),
    "measured": (0.8, 1.25),
    "assumed": (0.5, 2.0),
}
SHORTER: Final = 0.5
LONGER: Final = 4.0
"""How much longer answers may be than expected, where no line says how long they may be."""


@dataclass(frozen=True)
class Spread:
    """From, expected, to."""

    low: float = 0.0
    expected: float = 0.0
    high: float = 0.0

    def __add__(self, other: Spread) -> Spread:
        return Spread(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def times(self, factor: float) -> Spread:
        """All three, so many times."""
        return Spread(self.low * factor, self.expected * factor, self.high * factor)


NOTHING: Final = Spread()


def exactly(value: float) -> Spread:
    """What is known."""
    return Spread(value, value, value)


@dataclass(frozen=True)
class AnswerTokens:
    """What one line says about how long its answers may be, and what its model taught."""

    expected: float
    most: int | None
    least: int = 0
    fills: bool = False
    """It goes on to its limit (`ignore_eos`)."""
    choices: int = 1
    measured: bool = False
    """`expected` comes from earlier answers of the model."""


def output_tokens(answers: AnswerTokens) -> Spread:
    """Low: half of what is expected, or one token where nothing is measured; high: as much as the line allows."""
    if answers.fills and answers.most is not None:
        return exactly(answers.most * answers.choices)
    expected = max(answers.expected, answers.least)
    low = max(expected * SHORTER if answers.measured else min(1.0, expected), answers.least)
    high = expected * LONGER if answers.most is None else max(expected, answers.most)
    return Spread(min(low, expected), expected, high).times(answers.choices)


def total(weights: Sequence[float], values: Sequence[Spread], whole: bool) -> Spread:
    """The sum over all lines, from those of the sample; `whole` if those are all lines. Else its error widens it."""
    parts = [value.times(weight) for weight, value in zip(weights, values, strict=True)]
    found = sum(parts, NOTHING)
    if whole or len(parts) < 2:
        return found
    margin = _ERRORS * math.sqrt(len(parts)) * statistics.stdev(part.expected for part in parts)
    return Spread(max(0.0, found.low - margin), found.expected, found.high + margin)
