"""Around every request: its turn, its id on the answer, a log line, a measurement, and no error without an envelope."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.api.http import errors
from penstock.api.http.request_metrics import REQUEST_SECONDS
from penstock.api.http.request_turns import RequestTurn, RequestTurns
from penstock.domain.accounts.access import Access
from penstock.domain.api_errors import BadRequest, Internal, TooMany

log = structlog.get_logger()

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
HEAD: Final = "penstock.head"
"""In the scope of a request that wants an answer's head alone."""
_ALWAYS: Final = ("/health/", "/metrics")
"""Whoever watches over this process is answered at once, however many want something of it."""
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
_POLICY: Final = b"content-security-policy"
_NO_PAGE: Final = (*_HEADERS, (_POLICY, b"default-src 'none'; frame-ancestors 'none'"))
"""An answer is data: a browser that is led to it must run, frame and guess nothing (OWASP, REST security)."""
_REFUSALS_LOGGED_SECONDS: Final = 1.0
CLIENT_LEFT: Final = 499  # nginx's number for it; it is logged and measured, never sent


class RequestMiddleware:
    """The outermost ASGI layer."""

    def __init__(
        self, app: ASGIApp, turns: RequestTurns, whose: Callable[[Scope], str], told: Callable[[Scope], dict[str, str]]
    ) -> None:
        self._app = app
        self._turns = turns
        self._whose = whose
        self._told = told
        self._refused = 0
        """Requests with a wrong key that have no log line yet."""
        self._refusal_logged_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":
            # Whatever can be read answers HEAD as it answers GET, without the bytes (RFC 9110 9.3.2).
            scope["method"], scope[HEAD] = "GET", True
        request_id = f"req_{secrets.token_hex(12)}"
        scope["penstock.request_id"] = request_id
        status = 0
        began = time.perf_counter()

        turn = scope["penstock.turn"] = RequestTurn(self._turns, self._whose(scope))

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                turn.leave()
                scope["method"] = method  # the server leaves out the bytes
                status = message["status"]
                more = [(name.encode(), value.encode()) for name, value in self._told(scope).items()]
                given = list(message.get("headers", ()))
                is_page = any(name == _POLICY for name, _ in given)  # what is for browsers has a policy of its own
                head = [*given, *(_HEADERS if is_page else _NO_PAGE), (b"x-request-id", request_id.encode())]
                message["headers"] = head + more
            await send(message)

        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            if "\0" in scope["path"] or b"%00" in scope["query_string"]:
                await errors.answer(BadRequest("The URL holds a NUL character."))(scope, receive, send_with_id)
            else:
                if not scope["path"].startswith(_ALWAYS):
                    await turn.enter()
                await self._app(scope, receive, send_with_id)
        except TooMany as error:
            await errors.answer(error)(scope, receive, send_with_id)
        except ClientDisconnect:
            status = CLIENT_LEFT
        except Exception:
            log.exception("request_failed", method=scope["method"], route=_route(scope))
            if status:  # its start is sent: all that is left is to cut the connection
                raise
            await errors.answer(Internal())(scope, receive, send_with_id)
        finally:
            turn.leave()
            scope["method"] = method
            seconds = time.perf_counter() - began
            REQUEST_SECONDS.labels(method if method in METHODS else "other", _route(scope), status).observe(seconds)
            self._log(scope, status, seconds)
            structlog.contextvars.unbind_contextvars("request_id")

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        """One line; of requests with a wrong key one a second, which says how many there were."""
        access: Access | None = scope.get("penstock.access")
        more: dict[str, Any] = {"tenant": access.tenant, "key": access.key} if access else {}
        more["client"] = _client(scope)
        if status == 401:
            self._refused += 1
            if time.monotonic() - self._refusal_logged_at < _REFUSALS_LOGGED_SECONDS:
                return
            more["refused"], self._refused, self._refusal_logged_at = self._refused, 0, time.monotonic()
        ms = round(seconds * 1_000, 1)
        log.info("request", method=scope["method"], route=_route(scope), status=status, ms=ms, **more)


def _client(scope: Scope) -> str:
    """Whose address it came from: the connection's, or what a proxy that is believed says of it."""
    client = scope.get("client")
    return str(client[0])[:64] if client else ""


def _route(scope: Scope) -> str:
    """The route's template, so that ids are not labels."""
    route: Any = scope.get("route")
    return getattr(route, "path", "unknown")
