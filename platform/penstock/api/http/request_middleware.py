"""Around every request: its id on the answer, one log line, one measurement, and no error without an envelope."""

from __future__ import annotations

import secrets
import time
from typing import Any, Final

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.api.http import errors
from penstock.api.http.request_metrics import REQUEST_SECONDS
from penstock.domain.api_errors import BadRequest, Internal

log = structlog.get_logger()

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
CLIENT_LEFT: Final = 499  # nginx's number for it; it is logged and measured, never sent


class RequestMiddleware:
    """The outermost ASGI layer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(12)}"
        scope["penstock.request_id"] = request_id
        status = 0
        began = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            if "\0" in scope["path"] or b"%00" in scope["query_string"]:
                await errors.answer(BadRequest("The URL holds a NUL character."))(scope, receive, send_with_id)
            else:
                await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            status = CLIENT_LEFT
        except Exception:
            log.exception("request_failed", method=scope["method"], route=_route(scope))
            if status:  # its start is sent: all that is left is to cut the connection
                raise
            await errors.answer(Internal())(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - began
            method = scope["method"] if scope["method"] in METHODS else "other"
            REQUEST_SECONDS.labels(method, _route(scope), status).observe(seconds)
            log.info(
                "request",
                method=scope["method"],
                route=_route(scope),
                status=status,
                ms=round(seconds * 1_000, 1),
            )
            structlog.contextvars.unbind_contextvars("request_id")


def _route(scope: Scope) -> str:
    """The route's template, so that ids are not labels."""
    route: Any = scope.get("route")
    return getattr(route, "path", "unknown")
