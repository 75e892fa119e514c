"""Equal shares: how many of some places one tenant may hold, so that whoever comes next finds one free.

What a tenant holds can't be taken from him, so he must not get all of it: the last sixteenth of the places, one at
least, is for tenants who hold less than an equal share of all, one more tenant counted than there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_KEPT: Final = 16
_FEW: Final = 4
"""Of fewer places none is kept."""


def may_take(tenant: str, held: Mapping[str, int], in_use: int, places: int, size: int = 1) -> bool:
    """Whether a tenant may take `size` more of `places`, of which `in_use` are taken.

    `held` says how many of them each tenant holds under this rule; those who hold none are left out.
    """
    left = places - in_use - size
    mine = held.get(tenant, 0)
    share = max(1, places // (len(held) + (not mine) + 1))
    return left >= kept(places) or (left >= 0 and mine + size <= share)


def kept(places: int) -> int:
    """How many of the places are for tenants who hold less than an equal share."""
    return max(1, places // _KEPT) if places >= _FEW else 0
