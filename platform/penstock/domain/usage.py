"""Usage: what a tenant's work took in a span of time, by model."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from penstock.domain.batch import Usage
from penstock.domain.cost import Cost


@dataclass(frozen=True)
class Used:
    """What began in one span: recorded lines of batches and jobs, or waiting calls; `model` is None for all."""

    start: datetime
    model: str | None
    batch: bool | None
    requests: int
    usage: Usage
    cost: Cost
