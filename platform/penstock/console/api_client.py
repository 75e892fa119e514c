"""The API client: asks the API's routes inside this process as whoever is logged in.

What a page shows or does is what the API answers to that person's key: rights, limits, tenants, errors and audit are
its own, and the console can do nothing that the API can't. No connection, no key and no cookie is involved: the
request's scope says who asks.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.console.scope import ENDLESS, HEAD
from penstock.domain.accounts.access import Access

_KEPT: Final = ("type", "asgi", "http_version", "scheme", "root_path", "client", "server", "extensions", "state")
"""What an inner request has of the outer one; and all that is the platform's own."""

_PIECES_AHEAD: Final = 2

Query = Mapping[str, str | int | Sequence[str] | None]


class ApiProblem(Exception):
    """The API refused: its status and OpenAI's error object."""

    def __init__(self, status: int, error: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        super().__init__(error["message"])
        self.status = status
        self.message: str = error["message"]
        self.code: str | None = error.get("code")
        self.param: str | None = error.get("param")
        self.headers = headers


@dataclass(frozen=True)
class ApiAnswer:
    """What the API answered, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its document."""
        return json.loads(self.body)


class ApiEvents:
    """The data of a stream's events, as they come, until the API or `end` ends it."""

    def __init__(self, pieces: MemoryObjectReceiveStream[bytes], asked: asyncio.Task[None]) -> None:
        self._pieces = pieces
        self._asked = asked

    def end(self) -> None:
        """No event comes after this."""
        self._asked.cancel()

    async def __aiter__(self) -> AsyncIterator[str]:
        left = b""
        async for piece in self._pieces:
            *whole, left = (left + piece).split(b"\n\n")
            for event in whole:
                data = [line[6:] for line in event.split(b"\n") if line.startswith(b"data: ")]
                if data:
                    yield b"\n".join(data).decode()


class ApiClient:
    """Asks one API; `granted` is the scope's key under which it reads who asks."""

    def __init__(self, api: ASGIApp, granted: str) -> None:
        self._api = api
        self._granted = granted

    def of(self, scope: Scope, receive: Receive, access: Access) -> GrantedApi:
        """Asks for somebody while their request is served."""
        scope.setdefault(ENDLESS, [])  # the API adds to the same list
        return GrantedApi(self._api, {**scope, self._granted: access}, receive)


class GrantedApi:
    """Asks the API for one person."""

    def __init__(self, api: ASGIApp, scope: Scope, receive: Receive) -> None:
        self._api = api
        self._scope = scope
        self._receive = receive

    async def get(self, path: str, query: Query | None = None) -> Any:
        """A document; raises ApiProblem."""
        return (await self.ask("GET", path, query)).json

    async def post(
        self, path: str, body: Any = None, headers: Mapping[str, str] | None = None, query: Query | None = None
    ) -> Any:
        """What the API says to a POST with this document, or with none; raises ApiProblem."""
        return (await self.ask("POST", path, query, body, headers)).json

    async def patch(self, path: str, body: Any) -> Any:
        """What the API says to a PATCH with this document; raises ApiProblem."""
        return (await self.ask("PATCH", path, None, body)).json

    async def delete(self, path: str) -> Any:
        """What the API says to a DELETE; raises ApiProblem."""
        return (await self.ask("DELETE", path)).json

    async def ask(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> ApiAnswer:
        """The answer, whole, of whatever media type; raises ApiProblem."""
        sent = b"" if body is None else json.dumps(body).encode()
        given = {"content-type": "application/json", "content-length": str(len(sent)), **(headers or {})}
        return await self._whole(self._inner(method, path, query, given), _once(sent, self._receive))

    async def forward(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> ApiAnswer:
        """The answer, whole, to the browser's own body, which the API reads as it comes; raises ApiProblem."""
        return await self._whole(self._inner(method, path, None, {**self._passed(), **(headers or {})}), self._receive)

    async def _whole(self, scope: Scope, receive: Receive) -> ApiAnswer:
        status, pieces = 500, bytearray()
        head: dict[str, str] = {}

        async def send(message: Message) -> None:
            nonlocal status, head
            if message["type"] == "http.response.start":
                status = message["status"]
                head = _named(message["headers"])
            elif message["type"] == "http.response.body":
                pieces.extend(message.get("body", b""))

        scope.pop(HEAD, None)  # a page is made of whole answers, also where only its head is wanted
        await self._api(scope, receive, send)
        if status >= 400:
            raise ApiProblem(status, json.loads(pieces)["error"], head)
        return ApiAnswer(status, head, bytes(pieces))

    async def pieces(self, path: str, query: Query | None = None) -> AsyncGenerator[bytes, None]:
        """The body of an answer to a GET as it comes, a few pieces ahead of who reads it; raises ApiProblem.

        Close it (`aclose`) to read no more of it: the API's side ends with it.
        """
        fill, ahead = anyio.create_memory_object_stream[Message](_PIECES_AHEAD)
        scope = self._inner("GET", path, query, {})
        scope.pop(HEAD, None)

        async def never() -> Message:
            future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
            return await future

        async def answer() -> None:
            with fill:
                await self._api(scope, _once(b"", never), fill.send)

        asking = asyncio.create_task(answer())
        status, head, problem = 500, {}, bytearray()
        try:
            async for message in ahead:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    head = _named(message["headers"])
                elif status >= 400:
                    problem += message.get("body", b"")
                elif message.get("body"):
                    yield message["body"]
            await asking
            if status >= 400:
                raise ApiProblem(status, json.loads(problem)["error"], head)
        finally:
            asking.cancel()
            ahead.close()
            fill.close()
            with suppress(asyncio.CancelledError, anyio.BrokenResourceError):
                await asking

    @asynccontextmanager
    async def events(self, path: str) -> AsyncIterator[ApiEvents]:
        """A stream of server-sent events; raises ApiProblem. Whoever reads slowly has the latest, and no queue."""
        fill, pieces = anyio.create_memory_object_stream[bytes](1)
        begun: asyncio.Future[tuple[int, dict[str, str]]] = asyncio.get_running_loop().create_future()
        refusal, left = bytearray(), asyncio.Event()

        async def gone() -> Message:
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                head = _named(message["headers"])
                begun.set_result((message["status"], head))
            elif body := message.get("body", b""):
                if begun.result()[0] >= 400:
                    refusal.extend(body)
                else:
                    await fill.send(body)

        async def ask() -> None:
            async with fill:
                await self._api(self._inner("GET", path, None, {}), _once(b"", gone), send)

        asked = asyncio.create_task(ask())
        try:
            first: set[asyncio.Future[Any]] = {asked, begun}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if not begun.done():
                await asked  # it failed before it answered
            status, head = begun.result()
            if status >= 400:
                await asked
                raise ApiProblem(status, json.loads(refusal)["error"], head)
            yield ApiEvents(pieces, asked)
        finally:
            left.set()
            asked.cancel()
            pieces.close()
            with suppress(asyncio.CancelledError, anyio.BrokenResourceError):
                await asked

    async def relay(
        self,
        method: str,
        path: str,
        send: Send,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Let the API itself answer the browser's request, body, ranges and stream as they come."""
        await self._api(self._inner(method, path, query, {**self._passed(), **(headers or {})}), self._receive, send)

    def _passed(self) -> dict[str, str]:
        named = _named(self._scope["headers"])
        return {name: named[name] for name in _PASSED if name in named}

    def _inner(self, method: str, path: str, query: Query | None, headers: Mapping[str, str]) -> Scope:
        outer = self._scope
        root = outer.get("root_path", "")
        asked = {name: value for name, value in (query or {}).items() if value is not None}
        own = {name: value for name, value in outer.items() if name in _KEPT or name.startswith("penstock.")}
        return own | {
            "method": method,
            "path": root + path,
            "raw_path": (root + path).encode(),
            "query_string": urlencode(asked, doseq=True).encode(),
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
        }


def _named(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}


def _once(body: bytes, then: Receive) -> Receive:
    """Gives this body, whole, and after it what `then` does."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return waiting.pop() if waiting else await then()

    return receive


_PASSED: Final = ("content-type", "content-length", "range", "if-range", "if-none-match", "accept-encoding")
"""Of what the browser's request says, this goes on to the API; never its cookie."""
