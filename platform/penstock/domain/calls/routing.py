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
    ingresses: Sequence[Ingress],
    key: bytes | None,
    mine: Mapping[UUID, int],
    region: str,
    excluded: Collection[UUID],
    chance: Random,
) -> Ingress | None:
    """The open ingress that a call is offered to; None if there is none.

    `ingresses` serve the call's model; `mine` corrects the calls that each reported. A worker with a free slot goes
    before one where the call would wait, of these one's own region, and of these one that is dedicated to its version
    before a member of a shared pool, whose place others wait for.
    """
    there = [ingress for ingress in ingresses if ingress.load.open and ingress.worker not in excluded]
    roomy = [ingress for ingress in there if calls(ingress, mine) < slots(ingress)]
    near = [ingress for ingress in roomy if ingress.region == region] or roomy
    candidates = [ingress for ingress in near if not ingress.shared] or near or there
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    if key is not None:
        return _drawn(candidates, key, mine)
    one, other = chance.sample(candidates, 2)
    return min(one, other, key=lambda ingress: calls(ingress, mine) / slots(ingress))


def calls(ingress: Ingress, mine: Mapping[UUID, int]) -> int:
    """How many calls are inside, as far as is known here."""
    return max(0, ingress.load.calls + mine.get(ingress.worker, 0))


def slots(ingress: Ingress) -> int:
    """How many requests it runs at once."""
    return max(1, ingress.slots)


def within_share(ingresses: Sequence[Ingress], mine: Mapping[UUID, int]) -> list[Ingress]:
    """Ingresses with at most 1.25 times the mean load and one call; never none, for one is at the mean or below."""
    mean = sum(calls(ingress, mine) for ingress in ingresses) / sum(slots(ingress) for ingress in ingresses)
    return [ingress for ingress in ingresses if calls(ingress, mine) <= _SHARE * mean * slots(ingress) + 1]


def _drawn(ingresses: Sequence[Ingress], key: bytes, mine: Mapping[UUID, int]) -> Ingress:
    below = within_share(ingresses, mine)
    return max(below, key=lambda ingress: affinity.weight(key, ingress.worker))
