"""Aliases: names of a model's versions, each with its share in percent. The latest row of an alias counts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from penstock.domain.api_errors import BadRequest
from penstock.domain.models.demand import Demand
from penstock.domain.models.version import label

WHOLE: Final = 100
MOST_VERSIONS: Final = 10
_ALIAS: Final = re.compile(r"(?!v[0-9]+$)[a-z][a-z0-9_-]{0,39}", re.ASCII)


@dataclass(frozen=True)
class Split:
    """How an alias parts its requests between versions: weights in percent, 100 in all."""

    weights: Mapping[int, int]
    """By version, those without a share are not there."""

    @classmethod
    def of(cls, weights: Mapping[int, int]) -> Split:
        """Checked; raises BadRequest for weights that don't add up."""
        if not weights or len(weights) > MOST_VERSIONS:
            raise BadRequest(f"An alias has 1 to {MOST_VERSIONS} versions.", param="weights")
        if any(not 0 <= weight <= WHOLE for weight in weights.values()):
            raise BadRequest(f"A weight is a whole number from 0 to {WHOLE}.", param="weights")
        if (total := sum(weights.values())) != WHOLE:
            told = " + ".join(f"{label(version)}={weight}" for version, weight in sorted(weights.items()))
            raise BadRequest(f"The weights must add up to {WHOLE}, and {told} is {total}.", param="weights")
        return cls({version: weight for version, weight in sorted(weights.items()) if weight})

    def pick(self, place: float) -> int:
        """The version at a place from 0 to below 100.

        The newest comes first: while its weight grows, whoever has it keeps it.
        """
        end = 0
        for version in sorted(self.weights, reverse=True):
            end += self.weights[version]
            if place < end:
                return version
        return min(self.weights)

    @property
    def label(self) -> str:
        """For people: `v1`, or `v1 90 %, v2 10 %`."""
        if len(self.weights) == 1:
            return label(next(iter(self.weights)))
        return ", ".join(f"{label(version)} {weight} %" for version, weight in sorted(self.weights.items()))


@dataclass(frozen=True)
class AliasChange:
    """One row of an alias's history; the latest is what holds."""

    id: int
    model: str
    alias: str
    split: Split | None
    """None: the alias is gone."""
    guard: Mapping[str, float] | None
    demand: Demand | None
    actor: str
    reason: str
    at: datetime


def check_alias(alias: str) -> str:
    """The alias, or BadRequest for what can't be one."""
    if not _ALIAS.fullmatch(alias):
        message = "An alias is 1 to 40 of a-z, 0-9, _ and -, begins with a letter and is no version such as v3 or v01."
        raise BadRequest(message, param="alias")
    return alias


def place_of(*parts: bytes) -> float:
    """Where something stands from 0 to below 100, the same each time (a hash of all its parts)."""
    hashed = hashlib.blake2b(digest_size=8)
    for part in parts:
        hashed.update(len(part).to_bytes(4))
        hashed.update(part)
    return int.from_bytes(hashed.digest()) / 2**64 * WHOLE


def place_of_batch(batch: str, name: str) -> float:
    """Where a batch or job stands for one of its models, for all its life."""
    return place_of(batch.encode(), name.encode())
