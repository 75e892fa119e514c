"""What was accepted: the lines of each batch and job as they were sent, and what was done to it since."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from faults.panels import Panel

_REFUSED: Final = re.compile(r"\[\[status (\d+)\]\]")


@dataclass(frozen=True)
class Line:
    """One line that was accepted: no other line of the load has this text, in its first 80 characters."""

    custom_id: str
    text: str
    panel: Panel | None = None
    """The ensemble that it asks."""
    embedded: bool = False
    """It asks for its text's vector, not for an answer."""

    @property
    def poison(self) -> bool:
        """Whether it kills every engine that is asked."""
        return "[[die]]" in self.text

    @property
    def refused(self) -> int | None:
        """The status with which the engine refuses it, if it does."""
        found = _REFUSED.search(self.text)
        return int(found[1]) if found else None

    @property
    def questions(self) -> Mapping[str, int]:
        """What engines are asked for it and how often, if nothing fails."""
        return self.panel.questions(self.text) if self.panel else {self.text: 1}


@dataclass
class Accepted:
    """One batch or job whose create was answered with its id, and what was done to it since."""

    tenant: str
    kind: str
    id: str
    lines: Sequence[Line]
    cancelled: bool = False
    """Whether somebody tried to cancel it."""
    hurried: bool = False
    """Whether its deadline may have come before its end."""
