"""Askable: which requests an ensemble can answer at all, by its kind: of a line and of a call alike."""

from __future__ import annotations

from typing import Final

from penstock.domain.ensembles.ensemble import EnsembleDefinition, EnsembleKind, Method
from penstock.domain.inference_endpoints import CALLED, TABLE, WRITING, NumberKind
from penstock.formats.routed_request import brings_tools

WITHOUT_TOOLS: Final = "ensemble_without_tools"
NEEDS_TEXT: Final = "ensemble_needs_text"
NEEDS_NUMBERS: Final = "ensemble_needs_numbers"
_NUMBERS: Final = {Method.MEAN: frozenset(NumberKind), Method.RECIPROCAL_RANK: {NumberKind.SCORES, NumberKind.RANKS}}
_READS: Final = frozenset(kind for kind in EnsembleKind if kind.gathers and kind is not EnsembleKind.FALLBACK)
"""They read their members' texts before they answer."""


def reads_texts(definition: EnsembleDefinition) -> bool:
    """Whether its members are asked for whole texts, whatever its request says of a stream."""
    return definition.kind in _READS and definition.method is None


def fault(definition: EnsembleDefinition, endpoint: str, body: bytes) -> tuple[str, str] | None:
    """The code and message for a request that this ensemble can't answer, whatever its members say; None if it can."""
    kind, name = definition.kind, definition.name
    if definition.classifier is not None and endpoint not in WRITING:
        return NEEDS_TEXT, f"The classifier of the ensemble {name!r} reads what a text answers: it has no {endpoint}."
    if kind not in _READS:
        return None
    if definition.method is not None:
        return _of_numbers(definition.method, name, endpoint)
    if endpoint not in WRITING:
        return NEEDS_TEXT, f"The ensemble {name!r} is a {kind}, which reads texts: it has no {endpoint}."
    if brings_tools(body):
        return WITHOUT_TOOLS, f"The ensemble {name!r} is a {kind}, which takes no tools: a route or a fallback does."
    return None


def _of_numbers(method: Method, name: str, endpoint: str) -> tuple[str, str] | None:
    if CALLED[endpoint].numbers not in _NUMBERS[method]:
        there = ", ".join(row.url for row in TABLE if row.numbers in _NUMBERS[method])
        return NEEDS_NUMBERS, f"The ensemble {name!r} combines numbers by {method}: it has {there}, and no {endpoint}."
    return None
