"""Escalation: what part of an ensemble's requests came to each member, where members are asked in turn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from penstock.domain.ensembles.ensemble import EnsembleDefinition, EnsembleKind, MemberCounts

UNMEASURED_CASCADE: Final = 0.5
"""What part of what one member is asked goes on to the next, as long as nobody knows: a choice."""
UNMEASURED_TIES: Final = 0.5
"""What part of a vote's requests a judge decides, as long as nobody knows: a choice."""
_ERRORS: Final = 1.96
"""Standard errors to each side: 95 of 100 such ranges hold the truth."""


@dataclass(frozen=True)
class Reached:
    """What part of all requests one member is asked: from, expected, to."""

    low: float
    expected: float
    high: float


ALWAYS: Final = Reached(1.0, 1.0, 1.0)
NEVER: Final = Reached(0.0, 0.0, 0.0)


def rates(definition: EnsembleDefinition, counts: Mapping[str, MemberCounts]) -> dict[str, float | None]:
    """What went to each member but the first, over what went to the first; by label.

    None where all are asked, and while the first was asked nothing. Of a judge that decides ties it is how many there
    were.
    """
    first, *later = definition.asked
    asked = _asked(counts, first.label)

    def part(place: int, label: str) -> float | None:
        return min(1.0, _asked(counts, label) / asked) if asked and _seldom(definition, place) else None

    found: dict[str, float | None] = {first.label: None}
    return found | {one.label: part(place, one.label) for place, one in enumerate(later, 1)}


def _seldom(definition: EnsembleDefinition, place: int) -> bool:
    """Whether this one is asked a part of the requests only, by what others said or cost."""
    if definition.kind.in_turn:
        return place > 0
    judges = place == len(definition.members)
    return judges and (definition.kind is EnsembleKind.VOTE or definition.max_cost is not None)


def reached(definition: EnsembleDefinition, counts: Mapping[str, MemberCounts]) -> tuple[Reached, ...]:
    """How much each member will be asked, and behind them the judge: by what was measured, or by what is likely.

    Where all are asked at once each always is, and so is a judge, unless it decides ties or may cost too much, and a
    route's classifier. While nothing is known, a fallback's first member answers all, half of what a cascade asks of
    one goes on to the next, and half of a vote is tied.
    """
    members, kind = definition.asked, definition.kind
    if definition.classifier is not None:
        return (*_routed(definition, counts), ALWAYS)
    asked = _asked(counts, members[0].label)

    def much(place: int, label: str) -> Reached:
        if not _seldom(definition, place):
            return ALWAYS
        if asked:
            return _measured(min(asked, _asked(counts, label)), asked)
        if kind is EnsembleKind.FALLBACK:
            return NEVER
        if kind is EnsembleKind.CASCADE:
            return Reached(0.0, UNMEASURED_CASCADE**place, 1.0)
        return Reached(0.0, UNMEASURED_TIES if kind is EnsembleKind.VOTE else 1.0, 1.0)

    return tuple(much(place, one.label) for place, one in enumerate(members))


def _routed(definition: EnsembleDefinition, counts: Mapping[str, MemberCounts]) -> tuple[Reached, ...]:
    """How much each member of a route is asked, by what part of all its requests came to it; else all the same."""
    members = definition.members
    whole = sum(_asked(counts, one.label) for one in members)
    if whole:
        return tuple(_measured(_asked(counts, one.label), whole) for one in members)
    return tuple(ALWAYS if len(members) == 1 else Reached(0.0, 1 / len(members), 1.0) for _ in members)


def _asked(counts: Mapping[str, MemberCounts], label: str) -> int:
    one = counts.get(label, MemberCounts())
    return one.completed + one.failed + one.calls


def _measured(came: int, of: int) -> Reached:
    """Wilson's interval (1927): of few requests it is wide, and where none came it is not a point."""
    part, square = came / of, _ERRORS**2
    middle = (part + square / (2 * of)) / (1 + square / of)
    margin = _ERRORS / (1 + square / of) * math.sqrt(part * (1 - part) / of + square / (4 * of**2))
    return Reached(max(0.0, min(part, middle - margin)), part, min(1.0, max(part, middle + margin)))
