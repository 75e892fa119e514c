"""The guard around the console: what changes something comes from its own pages, and pages load nothing foreign.

A page of another site can make a browser send a form with our cookie; it can't make it say that it came from here
(https://www.w3.org/TR/fetch-metadata/; OWASP, Cross-Site Request Forgery Prevention).
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        *(f"{what}-src 'self'" for what in ("script", "style", "img", "connect", "worker", "manifest")),
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""No inline script or style, so no nonces: what an answer of a model brings into a page stays text."""
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS: Final = (
    (b"content-security-policy", POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class ConsoleGuard:
    """The outermost layer of the console."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, unless another site's page made it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower(): value for name, value in message.get("headers", ())}
                kept = () if b"cache-control" in given else ((b"cache-control", b"no-store"),)
                message["headers"] = [*message.get("headers", ()), *_HEADERS, *kept]
            await send(message)

        if scope["method"] not in _READING and not _is_our_own(Headers(scope=scope)):
            refusal = PlainTextResponse("This request did not come from a page of this console.\n", 403)
            await refusal(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)


def _is_our_own(headers: Headers) -> bool:
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = headers.get("origin")
    try:
        return origin is not None and urlsplit(origin).netloc == headers.get("host", "")
    except ValueError:  # "http://["
        return False
