"""Slack: the time that a batch has left beyond what its work needs, and whether it should rise by one lane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_WINDOW_PART: Final = 0.1
"""A batch rises in the last tenth of its window at the latest: a day's batch is not left to its last half minute."""
_SETTLED: Final = 2.0
"""It goes back once its slack is so many margins: less, and it would rise and fall with each new rate."""
_NOISE: Final = 0.1
"""A risen batch may be late by this part of its margin before it is given up: rates are never exact."""


@dataclass(frozen=True)
class Outlook:
    """One model's part of a batch, as the database sees it now."""

    batch: str
    model: str
    promoted: bool
    """True if some of its open slices are."""
    unpromoted: bool
    """True if some are not."""
    left_seconds: float
    """Until its deadline."""
    window_seconds: float
    """From its creation to its deadline."""
    needed_seconds: float
    """Its open tokens over what all live workers of the model make a second: the least time that it can take."""

    @property
    def slack_seconds(self) -> float:
        """What is left beyond the least that it can take."""
        return self.left_seconds - self.needed_seconds


def rises(outlook: Outlook, margin_seconds: float) -> bool:
    """Say whether its open slices belong one lane above their own now.

    They do from the moment when the slack falls below the margin (or a tenth of the window, if that is more), until
    it is twice that again, or the deadline can't be met any more even if the whole fleet did nothing else.
    """
    margin = max(margin_seconds, _WINDOW_PART * outlook.window_seconds)
    if outlook.promoted:
        return -_NOISE * margin <= outlook.slack_seconds <= _SETTLED * margin
    return 0 <= outlook.slack_seconds < margin
