"""Tenants: who owns keys, files and batches."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

BOOTSTRAP_TENANT: Final = "default"
"""The first one: the bootstrap key's, and that of commands that name none."""
LONGEST_RETENTION_DAYS: Final = 3_650


@dataclass(frozen=True)
class Tenant:
    """A tenant and its weight: one with 2 gets twice the tokens of one with 1, where both have work in one lane."""

    id: str
    weight: float
    cache: bool
    """Whether its requests use the shared cache unless they say otherwise."""
    created_at: datetime
    batch_retention_days: int | None = None
    """Its batches and jobs, with their results, go so many days after their end; None: as the settings say."""
    file_retention_days: int | None = None
    """Its files go so many days after the last batch that read them has ended; None: as each file says."""
    erasure: str | None = None
    """The erasure that goes on: nothing is taken of the tenant any more."""
