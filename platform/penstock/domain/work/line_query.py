"""Line queries: which of a batch's lines somebody wants to see."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MOST_LINE: Final = 2**31 - 1
"""No line has a higher number."""


class LineState(StrEnum):
    """How a line stands."""

    ANSWERED = "answered"
    """With 2xx: it is in the output file, or will be."""
    FAILED = "failed"
    """It is in the error file, or will be."""
    OPEN = "open"
    """Not answered by now."""


@dataclass(frozen=True)
class LineQuery:
    """So many lines behind line `after`, in the order of the input."""

    after: int = 0
    limit: int = 100
    state: LineState | None = None
    code: str | None = None
    status: int | None = None
    """The engine's; 0: it said nothing."""
    custom_id: str | None = None

    @property
    def wants_groups(self) -> bool:
        """Whether only lines that failed in a certain way are wanted."""
        return self.code is not None or self.status is not None

    def takes(self, status: int | None, code: str) -> bool:
        """Whether a line that failed so is wanted."""
        return (self.code is None or code == self.code) and (self.status is None or (status or 0) == self.status)
