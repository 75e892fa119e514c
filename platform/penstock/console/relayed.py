"""A relayed answer: the API's own, as it streams, handed to the browser; the browser's body streams in."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from penstock.console.api_client import GrantedApi, Query


class RelayedAnswer(Response):
    """What the API answers to the browser's request at this path: body, ranges and headers are its own."""

    def __init__(self, api: GrantedApi, method: str, path: str, query: Query | None = None) -> None:
        super().__init__()
        self._api = api
        self._method = method
        self._path = path
        self._query = query

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the API answer."""
        await self._api.relay(self._method, self._path, send, self._query)
