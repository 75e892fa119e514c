"""Routing: which worker gets a waiting call, decided from what was heard of all of them.

With an affinity key it is rendezvous hashing with bounded load (Mirrokni, Thorup and Zadimoghaddam, 2018): a worker
that holds more than its share of the calls is passed over. Without, it is the less loaded of two (Mitzenmacher, 2001).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import Final
from uuid import UUID

from penstock.domain.calls import affinity
from penstock.domain.calls.ingress import Ingress

_SHARE: Final = 1.25
"""How far above the mean load a worker may stand before keys that belong to it go elsewhere; a call is for free."""


def choose(
    doors: Sequence[Ingress],
    key: bytes | None,
    mine: Mapping[UUID, int],
    region: str,
    excluded: Collection[UUID],
    chance: Random,
) -> Ingress | None:
    """The open door that a call is offered to; None if there is none.

    `doors` serve the call's model; `mine` corrects the calls that each said at its pulse. One's own region goes first,
    and a worker with a free slot before one where the call would wait.
    """
    there = [door for door in doors if door.load.open and door.worker not in excluded]
    roomy = [door for door in there if calls(door, mine) < slots(door)]
    candidates = [door for door in roomy if door.region == region] or roomy or there
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    if key is not None:
        return _drawn(candidates, key, mine)
    one, other = chance.sample(candidates, 2)
    return min(one, other, key=lambda door: calls(door, mine) / slots(door))


def calls(door: Ingress, mine: Mapping[UUID, int]) -> int:
    """How many calls are inside, as far as is known here."""
    return max(0, door.load.calls + mine.get(door.worker, 0))


def slots(door: Ingress) -> int:
    """How many requests it runs at once."""
    return max(1, door.slots)


def within_share(doors: Sequence[Ingress], mine: Mapping[UUID, int]) -> list[Ingress]:
    """Doors with at most 1.25 times the mean load and one call; never none, for one is at the mean or below."""
    mean = sum(calls(door, mine) for door in doors) / sum(slots(door) for door in doors)
    return [door for door in doors if calls(door, mine) <= _SHARE * mean * slots(door) + 1]


def _drawn(doors: Sequence[Ingress], key: bytes, mine: Mapping[UUID, int]) -> Ingress:
    below = within_share(doors, mine)
    return max(below, key=lambda door: affinity.weight(key, door.worker))
