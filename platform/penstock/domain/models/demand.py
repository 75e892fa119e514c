"""A demand: what an eval must have found of a version before an alias gives it a larger share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Demand:
    """A completed run of this eval whose scorer's mean is surely so high."""

    tenant: str
    """Whose eval it is."""
    eval: str
    scorer: str
    at_least: float
    """From 0 to 1. It is compared with the lower end of the mean's 95 % interval: few lines prove little."""

    @classmethod
    def of_json(cls, value: Mapping[str, Any] | None) -> Demand | None:
        """What `as_json` wrote."""
        return None if value is None else cls(**value)

    def as_json(self) -> dict[str, Any]:
        """For a row."""
        return asdict(self)

    @property
    def label(self) -> str:
        """For people: `at least 0.8 of exact in eval_…`."""
        return f"at least {self.at_least:g} of {self.scorer} in {self.eval}"
