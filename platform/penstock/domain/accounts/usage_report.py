"""Usage: what a tenant's work took in a span of time, by model, kind of work, lane or API key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from penstock.domain.accounts.cost import Cost
from penstock.domain.accounts.tokens import Usage

MOST_KEYS: Final = 100
"""API keys that an hour keeps apart of a model (and lane): what more of them use counts as nobody's."""


class UsageGroup(StrEnum):
    """What usage can be told apart by."""

    MODEL = "model"
    BATCH = "batch"
    LANE = "lane"
    API_KEY = "api_key_id"


@dataclass(frozen=True)
class UsageRow:
    """What began in one span: recorded lines of batches and jobs, or waiting calls; a group is None unless asked."""

    start: datetime
    model: str | None
    batch: bool | None
    lane: str | None
    """None also of waiting calls, and of what was recorded before lanes were kept."""
    api_key: str | None
    """The id of the key whose work it is; None also where none was kept."""
    key_name: str | None
    requests: int
    usage: Usage
    cost: Cost
    saved: int
    """Picounits: how much more it would have cost had nothing been in a cache or answered already."""
