"""Tenants: who owns keys, files and batches."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Tenant:
    """A tenant and its weight: one with 2 gets twice the tokens of one with 1, where both have work in one lane."""

    id: str
    weight: float
    cache: bool
    """Whether its requests use the shared cache unless they say otherwise."""
    created_at: datetime
