"""Pins: what lines ask that are planned together, and the versions that their batch or job is pinned to by it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from penstock.domain.ensembles.ensemble import ChosenMember
from penstock.domain.models.registry import ModelTarget


class LineModel(NamedTuple):
    """What lines ask that are planned together: one model, one member of an ensemble, or an ensemble that gathers."""

    asked: str
    """As the lines name it."""
    members: tuple[ChosenMember, ...] = ()
    """Of an ensemble: the one that they go to, or all that may be asked, in their order."""

    @property
    def gathers(self) -> bool:
        """Whether one answer may take several members'."""
        return bool(self.members) and self.members[0].gathers

    @property
    def at_once(self) -> int:
        """How many members are asked each line at once."""
        return sum(not one.later for one in self.members) or 1

    @property
    def names(self) -> tuple[str, ...]:
        """What is to be resolved."""
        return tuple(one.model for one in self.members) or (self.asked,)


def pins(lines: Iterable[LineModel], targets: Mapping[str, ModelTarget]) -> dict[str, int]:
    """The versions that a batch is pinned to, by what its lines ask: an ensemble's own, and its members'.

    `targets`: what each of their names stands for.
    """
    found: dict[str, int] = {}
    for line in lines:
        for name in line.names:
            if (number := targets[name].number) is not None:
                found[name] = number
        if line.members:
            found[line.asked] = line.members[0].version
    return found
