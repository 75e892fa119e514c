"""Askable: which requests an ensemble can answer at all, by its kind: of a line and of a call alike."""

from __future__ import annotations

from typing import Final

from penstock.domain.ensembles.ensemble import EnsembleDefinition, EnsembleKind
from penstock.domain.inference_endpoints import WRITING
from penstock.formats.routed_request import brings_tools
from penstock.service.ensembles.routing import Unroutable

WITHOUT_TOOLS: Final = "ensemble_without_tools"
DOES_NOT_STREAM: Final = "ensemble_does_not_stream"
NEEDS_TEXT: Final = "ensemble_needs_text"
_READS: Final = frozenset({EnsembleKind.VOTE, EnsembleKind.CASCADE})
"""They read their members' texts before they answer."""


def check(definition: EnsembleDefinition, endpoint: str, body: bytes, *, stream: bool) -> None:
    """Raise Unroutable for a request that this ensemble can't answer, whatever its members say."""
    kind, name = definition.kind, definition.name
    if kind not in _READS:
        return
    if endpoint not in WRITING:
        message = f"The ensemble {name!r} is a {kind}, which reads texts: it has no {endpoint}."
        raise Unroutable(NEEDS_TEXT, message)
    if stream:
        message = f"The ensemble {name!r} is a {kind}, which does not stream: send this without 'stream'."
        raise Unroutable(DOES_NOT_STREAM, message)
    if brings_tools(body):
        message = f"The ensemble {name!r} is a {kind}, which takes no tools: a route or a fallback does."
        raise Unroutable(WITHOUT_TOOLS, message)
