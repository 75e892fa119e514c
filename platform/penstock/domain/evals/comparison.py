"""Comparisons: two runs of one eval, line by line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

COMPARISON_PREFIX: Final = "evalcmp_"


class ComparisonState(StrEnum):
    """How far a comparison is."""

    COMPARING = "comparing"
    COMPLETED = "completed"
    FAILED = "failed"


class ComparisonVerdict(StrEnum):
    """What the interval of the difference says."""

    BETTER = "better"
    """The candidate is: the whole interval is above zero."""
    WORSE = "worse"
    """It is below zero."""
    NOT_SHOWN = "no_difference_shown"
    """It holds zero, or too few lines differ to say anything."""


@dataclass(frozen=True)
class Comparison:
    """One comparison. Times are UTC."""

    id: str
    tenant: str
    eval: str
    baseline: str
    candidate: str
    state: ComparisonState
    created_at: datetime
    outcome: Mapping[str, Any] | None = None
    error: Mapping[str, str] | None = None
    ended_at: datetime | None = None
