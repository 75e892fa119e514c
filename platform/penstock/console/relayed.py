"""RelayedAnswer answers: the API itself answers the browser's request; its body streams in, and the answer out."""

from __future__ import annotations

from fastapi import Response
from starlette.types import Receive, Scope, Send

from penstock.console.session import Visitor


class RelayedAnswer(Response):
    """What a route of the console gives for one of the API's, asked as the visitor with the browser's own body."""

    def __init__(self, visitor: Visitor, method: str, path: str) -> None:
        super().__init__()
        self._visitor = visitor
        self._method = method
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the API answer."""
        await self._visitor.api.relay(self._method, self._path, send)
