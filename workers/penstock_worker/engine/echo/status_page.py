"""What the echo engine says of itself: health, models, version and metrics, in vLLM's words where vLLM has some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from penstock_worker.engine.echo.body import Body, encode
from penstock_worker.engine.echo.counters import Counters
from penstock_worker.engine.echo.shapes import EchoShape

_VERSION_PATHS: Final = frozenset({"/version", "/api/version"})


def page(counters: Counters, path: str, shape: EchoShape) -> web.Response:
    """The answer to a GET."""
    profile = shape.profile
    if path in (profile.health_paths or ("/health",)) and path not in _VERSION_PATHS:
        return web.Response(status=200 if counters.core_lives else 503)
    if path == "/v1/models":
        common = {"object": "model", "created": counters.voice.born, "owned_by": shape.owned_by}
        cards = [
            common | {"id": name, "parent": None if name == counters.model else counters.model}
            for name in counters.names
        ]
        return reply({"object": "list", "data": cards})
    if path in _VERSION_PATHS:
        return reply({"version": shape.owned_by})
    if profile.load and path == profile.load.path:
        return web.Response(text=shape.metrics(counters), content_type="text/plain")
    return not_found(shape)


def not_found(shape: EchoShape) -> web.Response:
    """There is nothing here."""
    error = {"message": "Not Found", "type": "NotFoundError", "param": None, "code": 404}
    return reply(shape.error({"error": error}), 404)


def reply(body: Body, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(body=encode(body), status=status, content_type="application/json", headers=headers)
