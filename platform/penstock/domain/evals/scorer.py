"""Scorers: what an answer is measured by. A score is kept in thousandths, so that sums of a million are exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

WHOLE: Final = 1_000
"""The best score, in thousandths."""
DEFAULT_SIMILARITY: Final = 0.8
"""From what cosine on `similarity` has passed, unless told."""


class ScorerKind(StrEnum):
    """How an answer is measured."""

    EXACT = "exact"
    """It is what was expected."""
    REGEX = "regex"
    """A pattern is found in it."""
    JSON_SCHEMA = "json_schema"
    """It is JSON that a schema allows."""
    SIMILARITY = "similarity"
    """Its embedding is near that of what was expected: their cosine."""


class Normalisation(StrEnum):
    """What is done to answer and expectation before they are compared."""

    TRIM = "trim"
    """White space at both ends goes."""
    SPACES = "spaces"
    """A run of white space is one space."""
    LOWER = "lower"
    """Letters are compared without their case."""
    PUNCTUATION = "punctuation"
    """Punctuation goes."""


@dataclass(frozen=True)
class Scorer:
    """One scorer of an eval. What does not belong to its kind is None."""

    name: str
    kind: ScorerKind
    normalise: tuple[Normalisation, ...] = ()
    extract: str | None = None
    """A pattern: what its first group (without one: all of it) finds is compared instead of the whole answer."""
    pattern: str | None = None
    schema: Mapping[str, Any] | None = None
    model: str | None = None
    """What embeds the texts."""
    threshold_milli: int = WHOLE
    """From this score on a line has passed."""

    @property
    def needs_reference(self) -> bool:
        """Whether it compares with what is expected of a line."""
        return self.kind in (ScorerKind.EXACT, ScorerKind.SIMILARITY)

    def as_json(self) -> dict[str, Any]:
        """Plain values, as a row keeps them; what is not set is left out."""
        found = {
            "name": self.name,
            "type": str(self.kind),
            "normalise": [str(one) for one in self.normalise] or None,
            "extract": self.extract,
            "pattern": self.pattern,
            "schema": self.schema,
            "model": self.model,
            "pass_threshold": self.threshold_milli / WHOLE if self.kind is ScorerKind.SIMILARITY else None,
        }
        return {name: value for name, value in found.items() if value is not None}

    @staticmethod
    def of_json(value: Mapping[str, Any]) -> Scorer:
        """What `as_json` wrote."""
        kind = ScorerKind(value["type"])
        threshold = value.get("pass_threshold", DEFAULT_SIMILARITY) if kind is ScorerKind.SIMILARITY else 1.0
        return Scorer(
            name=value["name"],
            kind=kind,
            normalise=tuple(Normalisation(one) for one in value.get("normalise", ())),
            extract=value.get("extract"),
            pattern=value.get("pattern"),
            schema=value.get("schema"),
            model=value.get("model"),
            threshold_milli=round(threshold * WHOLE),
        )


def embedder(scorers: tuple[Scorer, ...]) -> str | None:
    """The model that the scorers' texts are embedded with; None if none of them needs it."""
    return next((one.model for one in scorers if one.kind is ScorerKind.SIMILARITY), None)
