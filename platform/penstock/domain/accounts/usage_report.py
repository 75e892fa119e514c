"""Usage: what a tenant's work took in a span of time, by model."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from penstock.domain.accounts.cost import Cost
from penstock.domain.accounts.tokens import Usage


@dataclass(frozen=True)
class UsageRow:
    """What began in one span: recorded lines of batches and jobs, or waiting calls; `model` is None for all."""

    start: datetime
    model: str | None
    batch: bool | None
    requests: int
    usage: Usage
    cost: Cost
    saved: int
    """Picounits: how much more it would have cost had nothing been in a cache or answered already."""
