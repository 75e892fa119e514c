"""Ranks: the one order in which everything enters an engine, waiting calls and batch lines alike.

In the engine a rank is a `priority`, vLLM's integer of which the lower goes first. There is one more between each two
ranks, for lines that go ahead of others of their own rank.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final

from penstock.domain.work.lane import Lane


class Tier(StrEnum):
    """What a waiting call is served as: OpenAI's `service_tier`, after `auto` and the like are resolved."""

    PRIORITY = "priority"
    DEFAULT = "default"
    FLEX = "flex"


class Rank(IntEnum):
    """Lower goes first, at the gate and in the engine. The first two hold reserved slots."""

    REALTIME_HEAD = 0
    REALTIME = 1
    PRIORITY = 2
    STANDARD = 3
    FLEX = 4

    @property
    def is_realtime(self) -> bool:
        """True for those whom somebody waits for: they may use the slots that batch work never enters."""
        return self <= Rank.REALTIME

    def priority(self, *, ahead: bool = False) -> int:
        """What the engine is told."""
        return 2 * self - ahead


OF_TIER: Final = {Tier.PRIORITY: Rank.REALTIME_HEAD, Tier.DEFAULT: Rank.REALTIME, Tier.FLEX: Rank.FLEX}
OF_LANE: Final = {Lane.PRIORITY: Rank.PRIORITY, Lane.STANDARD: Rank.STANDARD, Lane.FLEX: Rank.FLEX}

# OpenAI's values of service_tier, and what each means here; leaving it out means `auto`.
TIERS: Final = {
    "auto": Tier.DEFAULT,
    "default": Tier.DEFAULT,
    "scale": Tier.DEFAULT,
    "priority": Tier.PRIORITY,
    "flex": Tier.FLEX,
}
