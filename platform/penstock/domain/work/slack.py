"""Slack: the time that a batch has left beyond what its work needs, and whether it should rise by one lane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_WINDOW_PART: Final = 0.1
"""A batch rises in the last tenth of its window at the latest: a day's batch is not left to its last half minute."""
_SETTLED: Final = 2.0
"""It goes back once it has so many margins to spare: less, and it would rise and fall with each new rate."""
_LONGEST_LEAD: Final = 0.5
"""What part of its window a batch may stand one lane above its own, while the whole fleet could do it in less."""
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


def rises(outlook: Outlook, margin_seconds: float, share: float) -> bool:
    """Say whether its open slices belong one lane above their own now, where they get this share of the fleet.

    They do from the moment when the time that is left falls below the lead and a margin (or a tenth of the window, if
    that is more), until it is two margins above it, or the deadline can't be met any more even if the whole fleet did
    nothing else. The lead is what they need at that share, but not before the second half of the window, unless they
    need more than that of the whole fleet: a large batch would stand above its lane all its life.
    """
    margin = max(margin_seconds, _WINDOW_PART * outlook.window_seconds)
    lead = max(outlook.needed_seconds, min(outlook.needed_seconds / share, _LONGEST_LEAD * outlook.window_seconds))
    spare = outlook.left_seconds - lead
    if outlook.promoted:
        return outlook.slack_seconds >= -_NOISE * margin and spare <= _SETTLED * margin
    return outlook.slack_seconds >= 0 and spare < margin
