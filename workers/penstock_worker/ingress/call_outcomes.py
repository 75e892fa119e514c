"""Call outcomes: how the latest calls at this ingress ended, for whoever lost the connection before the end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cachetools import FIFOCache

_MOST: Final = 1_000


class CallOutcome(StrEnum):
    """answered: to the end · engine-died: with the call in it · unanswered: the engine lives, but its answer broke off
    or its worker ended · left: by the client."""

    ANSWERED = "answered"
    ENGINE_DIED = "engine-died"
    UNANSWERED = "unanswered"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class EndedCall:
    """A call's end."""

    outcome: CallOutcome
    suspects: bool
    """Whether batch lines under suspicion were on trial when the engine died."""


class CallOutcomes:
    """The latest ends, at most so many of them; who asks later than that asks in vain."""

    def __init__(self, most: int = _MOST) -> None:
        self._ended: FIFOCache[str, EndedCall] = FIFOCache(most)

    def note(self, call: str, outcome: CallOutcome, *, suspects: bool = False) -> None:
        """A call has ended; the last word on it counts."""
        self._ended[call] = EndedCall(outcome, suspects)

    def find(self, call: str) -> EndedCall | None:
        """How a call ended; None if it has not, was never here, or is forgotten."""
        return self._ended.get(call)

    def __len__(self) -> int:
        return len(self._ended)
