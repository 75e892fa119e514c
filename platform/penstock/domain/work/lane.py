"""Lanes: how urgent work is, and how many of a worker's slice slots each lane may hold."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Lane(StrEnum):
    """The lanes that batches and jobs can choose, most urgent first. Waiting calls have one more, above them all."""

    PRIORITY = "priority"
    STANDARD = "standard"
    FLEX = "flex"

    @property
    def rank(self) -> int:
        """Order of service: 0 is served first."""
        return LANES.index(self)


LANES: Final = tuple(Lane)

# OpenAI's SDKs can send no lane, but metadata: what its `priority` may say, and what each means.
_NOTED: Final = {
    "priority": Lane.PRIORITY,
    "high": Lane.PRIORITY,
    "standard": Lane.STANDARD,
    "normal": Lane.STANDARD,
    "flex": Lane.FLEX,
    "low": Lane.FLEX,
}


def noted(metadata: Mapping[str, str]) -> Lane | None:
    """The lane that a batch's metadata chooses; None if it says nothing, or something of the caller's own."""
    return _NOTED.get(metadata.get("priority", ""))


# A lane may hold at most this many of a worker's slice slots, so that an urgent slice always finds one free; one tenant
# one less of them, so that another's does too; and its batches, or its small jobs, two less, so that the others do.
MOST_SLICE_SLOTS: Final = {Lane.PRIORITY: 6, Lane.STANDARD: 5, Lane.FLEX: 4}
SLICE_SLOTS: Final = max(MOST_SLICE_SLOTS.values())
# A slot is free again once its slice's lines are all in the engine, where so many slices may wait for their last
# answers: else one long answer would keep a slot from feeding.
MOST_RESTING: Final = 8
SLICE_PLACES: Final = SLICE_SLOTS + MOST_RESTING


def model_slug(model: str) -> str:
    """A model's name as a part of a queue name: readable, and unique by eight hex digits of its hash."""
    readable = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[:40]
    return f"{readable}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"


def generate_queue(model: str, lane: Lane) -> str:
    """The Celery queue that holds the hints for one model and lane."""
    return f"gpu.{model_slug(model)}.{lane}"
