"""Call reading: a waiting call's body is read once, for the model that it names, or as its ensemble says."""

from __future__ import annotations

import asyncio
from typing import Final

from penstock.domain.api_errors import BadRequest
from penstock.domain.ensembles.ensemble import Ensemble
from penstock.domain.models.registry import Registry
from penstock.formats import engine_body
from penstock.service.calls import call_request, gathered_request
from penstock.service.calls.call_request import CallRead, CallRequest
from penstock.service.calls.gathered_request import GatheredRequest
from penstock.service.ensembles.routing import Router, Unroutable
from penstock.settings import Settings

LONG_BODY_BYTES: Final = 256 * 1024
"""Reading and hashing a longer body holds an event loop up for milliseconds: a thread does it."""


async def read(given: CallRead, registry: Registry, settings: Settings) -> CallRequest | GatheredRequest:
    """Read a body; of an ensemble that routes, as the member gets it that its rules say. No target is resolved yet.

    What takes milliseconds of an event loop, or may with somebody's pattern, a thread does. Raises BadRequest.
    """
    ensemble = registry.ensemble(engine_body.model_of(given.raw) or "") if registry.ensembles else None
    searches = ensemble is not None and not ensemble.definition.kind.gathers and ensemble.definition.looks_long
    if len(given.raw) > LONG_BODY_BYTES or searches:
        return await asyncio.to_thread(_read, given, ensemble, registry, settings)
    return _read(given, ensemble, registry, settings)


def _read(
    given: CallRead, ensemble: Ensemble | None, registry: Registry, settings: Settings
) -> CallRequest | GatheredRequest:
    if ensemble is None:
        return call_request.of_model(given, given.raw, None, registry, settings)
    try:
        if ensemble.definition.kind.gathers:
            return gathered_request.read(given, ensemble, registry, settings)
        routed = Router(settings.bytes_per_token).routed(ensemble, given.endpoint, given.raw)
        if routed.gathers:
            return gathered_request.read(given, ensemble, registry, settings)
    except Unroutable as error:
        raise BadRequest(error.message, code=error.code) from None
    return call_request.of_model(given, routed.body, routed.chosen, registry, settings)
