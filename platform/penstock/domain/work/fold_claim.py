"""Folds: a slice that makes one answer of what an ensemble's members said to each of its lines."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.domain.ensembles.ensemble import EnsembleDefinition
from penstock.domain.work.slice import Claim


@dataclass(frozen=True)
class FoldClaim:
    """A fold in a holder's hand. Each of its members is done or gone, or waits to be asked."""

    claim: Claim
    definition: EnsembleDefinition
    version: int


@dataclass(frozen=True)
class FoldRead:
    """A fold, as one reads what its members said."""

    slice: int
    definition: EnsembleDefinition
