"""Error groups: a batch's failed lines, counted by the engine's status and the error's code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

MOST_GROUPS: Final = 64
"""Of one count: what is beyond them goes into the last, so that no engine's inventions grow anything."""
OTHER: Final = "other"


def group_id(status: int, code: str) -> str:
    """The name of a group: `<status>:<code>`, with `-` for no status."""
    return f"{status or '-'}:{code}"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one line failed. `status` is the engine's, 0 if it said nothing."""

    status: int
    code: str
    message: str

    @property
    def group_id(self) -> str:
        """The name of its group."""
        return group_id(self.status, self.code)


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """So many lines that failed alike; the message is the first one's."""

    status: int
    code: str
    lines: int
    first_line: int
    message: str

    @property
    def group_id(self) -> str:
        """Its name."""
        return group_id(self.status, self.code)

    def as_json(self) -> dict[str, Any]:
        """Plain values, as a row keeps them."""
        return asdict(self)

    @staticmethod
    def of_json(value: Mapping[str, Any]) -> ErrorGroup:
        """What `as_json` wrote."""
        return ErrorGroup(**value)
