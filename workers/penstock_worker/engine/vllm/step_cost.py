"""The step cost: what a step of an engine takes, learned from those that it made.

    seconds = base + row * (requests that get one token) + prompt * (tokens of prompts)

by the last steps, with the least absolute errors, so that one which took seconds (a process that was stopped, a kernel
that was compiled) tells nothing. On a CPU each token costs, so a step is as long as what is in it; a GPU reads the
weights once for however many, and its base is nearly all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Final, NamedTuple

_STEPS: Final = 512
_FIRST: Final = 64
"""With fewer nothing is said."""
_EACH: Final = 32
"""Steps between two looks."""
_TURNS: Final = 10
"""Of least squares, each with weights by the errors of the one before it: they lead to the least absolute errors."""
_LEAST_ERROR: Final = 1e-4
_VARIED: Final = 0.02
"""The least spread of the rows, of their mean, from which their cost is told."""


class StepCost(NamedTuple):
    """In seconds."""

    base: float
    row: float
    prompt: float

    def of(self, rows: float, prompt: float) -> float:
        """What a step takes with so many rows and tokens of prompts."""
        return self.base + self.row * rows + self.prompt * prompt


class StepMeter:
    """Learns the cost from steps as they end."""

    def __init__(self) -> None:
        self._seen = deque[tuple[int, int, float]](maxlen=_STEPS)
        self._until_look = _FIRST
        self.cost: StepCost | None = None
        """None until enough steps were seen."""

    def seen(self, tokens: Collection[int], seconds: float) -> None:
        """A step took so long, with so many tokens of each request."""
        rows = sum(count == 1 for count in tokens)
        self._seen.append((rows, sum(tokens) - rows, seconds))
        self._until_look -= 1
        if not self._until_look:
            self._until_look = _EACH
            self.cost = self._fitted()

    def _fitted(self) -> StepCost:
        import numpy as np

        seen = np.array(self._seen)
        known = np.column_stack([np.ones(len(seen)), seen[:, :2]])
        if seen[:, 0].std() < _VARIED * seen[:, 0].mean():
            known[:, 1] = 0  # as many rows in each: what they cost can't be told from the base
        weights = np.ones(len(seen))
        for _ in range(_TURNS):
            fit, *_ = np.linalg.lstsq(known * weights[:, None], seen[:, 2] * weights, rcond=None)
            weights = 1 / np.sqrt(np.maximum(abs(seen[:, 2] - known @ fit), _LEAST_ERROR))
        return StepCost(*(max(0.0, float(one)) for one in fit))
