"""Pins: what lines ask that are planned together, and the versions that their batch or job is pinned to by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from penstock.domain.ensembles.ensemble import ChosenMember
from penstock.domain.models.registry import ModelTarget


class LineModel(NamedTuple):
    """What lines ask that are planned together: one model, or one member of an ensemble."""

    asked: str
    """As the lines name it."""
    chosen: ChosenMember | None = None

    @property
    def name(self) -> str:
        """What is to be resolved."""
        return self.chosen.model if self.chosen else self.asked


def pins(targets: Mapping[LineModel, ModelTarget]) -> dict[str, int]:
    """The versions that a batch is pinned to, by what its lines ask: an ensemble's own, and its members'."""
    found = {line.name: one.number for line, one in targets.items() if one.number is not None}
    return found | {line.asked: line.chosen.version for line in targets if line.chosen}
