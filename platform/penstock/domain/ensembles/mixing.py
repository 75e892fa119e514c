"""Mixing: one score of each thing made of several models' scores. Pure; scaling all weights changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Final

from penstock.domain.ensembles.ensemble import Method

Scores = Mapping[int, float]
"""By the index of what is scored."""
_RANKS: Final = 60
"""Of reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009): how little the first few places differ."""


def shares(weights: Sequence[int | Fraction]) -> list[float]:
    """What part of the whole each weight is."""
    whole = sum(weights)
    return [float(Fraction(weight) / whole) for weight in weights]


def mixed(method: Method, weights: Sequence[int | Fraction], scores: Sequence[Scores]) -> dict[int, float]:
    """One score of each index; raises ValueError, with a reason, where they don't score the same things."""
    if any(one.keys() != scores[0].keys() for one in scores):
        raise ValueError("they score different things")
    each = scores if method is Method.MEAN else [_by_rank(one) for one in scores]
    parts = shares(weights)
    return {index: sum(part * one[index] for part, one in zip(parts, each, strict=True)) for index in scores[0]}


def _by_rank(scores: Scores) -> dict[int, float]:
    """Of equal scores the lower index comes first."""
    ranked = sorted(scores, key=lambda index: (-scores[index], index))
    return {index: 1 / (_RANKS + rank) for rank, index in enumerate(ranked, 1)}
