"""Shared secrets: what one side shows and the other accepts; several are in force while they are rotated.

The first is shown, all are accepted. So one by one, in any order that has each side accept a value before it is shown,
processes get a new one, and nobody is refused meanwhile.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass


@dataclass(frozen=True)
class SharedSecret:
    """The values in force; without any, nothing is accepted."""

    values: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> SharedSecret:
        """By comma; blanks around them don't count."""
        return cls(tuple(part.strip() for part in text.split(",") if part.strip()))

    def __bool__(self) -> bool:
        return bool(self.values)

    def __repr__(self) -> str:
        return f"SharedSecret({len(self.values)} values)"

    @property
    def shown(self) -> str:
        """What this side shows; empty if there is none."""
        return self.values[0] if self.values else ""

    def accepts(self, given: bytes) -> bool:
        """Whether it is one of them; how long this takes says nothing of how near it came, nor to which."""
        return sum(hmac.compare_digest(given, value.encode()) for value in self.values) > 0
