"""Escalation: what part of an ensemble's requests came to each member, where members are asked in turn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from penstock.domain.ensembles.ensemble import EnsembleDefinition, EnsembleKind, MemberCounts

UNMEASURED_CASCADE: Final = 0.5
"""What part of what one member is asked goes on to the next, as long as nobody knows: a choice."""
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

    None where members are not asked in turn, and while the first was asked nothing.
    """
    first, *later = definition.members
    asked = _asked(counts, first.label)
    known = definition.kind.in_turn and asked > 0
    found: dict[str, float | None] = {first.label: None}
    return found | {one.label: min(1.0, _asked(counts, one.label) / asked) if known else None for one in later}


def reached(definition: EnsembleDefinition, counts: Mapping[str, MemberCounts]) -> tuple[Reached, ...]:
    """How much each member will be asked, and behind them the judge: by what was measured, or by what is likely.

    Of a vote each member is always asked, and a judge where there is one; of a route its classifier. While nothing is
    known, a fallback's first member answers all, and half of what a cascade asks of one goes on to the next.
    """
    members, kind = definition.asked, definition.kind
    if definition.classifier is not None:
        return (*_routed(definition, counts), ALWAYS)
    if not kind.in_turn:
        return tuple(ALWAYS for _ in members)
    asked = _asked(counts, members[0].label)
    if asked:
        return (ALWAYS, *(_measured(min(asked, _asked(counts, one.label)), asked) for one in members[1:]))
    if kind is EnsembleKind.FALLBACK:
        return (ALWAYS, *(NEVER for _ in members[1:]))
    return (ALWAYS, *(Reached(0.0, UNMEASURED_CASCADE**place, 1.0) for place in range(1, len(members))))


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
