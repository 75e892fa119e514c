"""The direct handler: a batch line goes through vLLM's server as `vllm run-batch` takes it: bytes, handler, bytes.

On its usual road a request passes a web framework and the middlewares of other platforms, and its answer is made of
Python objects before it is JSON. As an ASGI middleware (vLLM's `--middleware`) this one stands before all of them,
takes requests that say `headers.LINE`, and asks the same handler. What is not an ordinary line (a stream, a body that
is no request, an exception) goes the usual road from its beginning, so that every error is the server's own. Both
roads give equal answers; a vLLM that has no such handler is left as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from penstock_worker.engine import headers

_HEADER: Final = headers.LINE.encode()
log = logging.getLogger("vllm.penstock.direct_handler")  # under vllm: where vLLM's own lines are written

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Road:
    """From a body to the handler of one endpoint."""

    request: Any
    """The pydantic model of its requests."""
    handler: str
    """Where the server's state has it."""
    ask: str
    """Its method."""

    def to(self, state: Any) -> Callable[[Any, Any], Awaitable[Any]] | None:
        """The handler's method; None if this model has none."""
        return getattr(getattr(state, self.handler, None), self.ask, None)


class DirectHandler:
    """The middleware."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._roads = _roads()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a line; let everything else pass."""
        road = self._roads.get(scope.get("path", "")) if scope["type"] == "http" else None
        if road is None or not any(name == _HEADER for name, _ in scope["headers"]):
            await self._app(scope, receive, send)
            return
        sent = _Sent(receive)
        with suppress(_Left):
            if answer := await _answered(road, scope, await sent.body(), sent):
                status, content = answer
                head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
                await send({"type": "http.response.start", "status": status, "headers": head})
                await send({"type": "http.response.body", "body": content})
            else:
                await self._app(scope, sent.again, send)


class _Left(Exception):
    """The client left: nobody is there to be answered."""


class _Sent:
    """What a client sent; its body can be taken twice."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: list[Message] = []

    async def body(self) -> bytes:
        """All of it. Raises _Left."""
        while not self._kept or self._kept[-1].get("more_body"):
            message = await self._receive()
            if message["type"] != "http.request":
                raise _Left
            self._kept.append(message)
        return b"".join(message.get("body", b"") for message in self._kept)

    async def again(self) -> Message:
        """The body's messages once more, and then what comes."""
        return self._kept.pop(0) if self._kept else await self._receive()

    async def left(self) -> None:
        """Return when the client has left."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _answered(road: Road, scope: Message, body: bytes, sent: _Sent) -> tuple[int, bytes] | None:
    """Status and body of an answer; None for what goes the usual road. Raises _Left."""
    from pydantic_core import from_json
    from starlette.requests import Request

    ask = road.to(scope["app"].state)
    try:
        asked = road.request.model_validate(from_json(body))
    except ValueError:
        return None
    if ask is None or asked.stream:
        return None
    asking = asyncio.ensure_future(ask(asked, Request(scope)))
    leaving = asyncio.ensure_future(sent.left())
    try:
        await asyncio.wait({asking, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            raise _Left
        answer = asking.result()
        return (answer.error.code if hasattr(answer, "error") else 200), answer.model_dump_json().encode()
    except _Left:
        raise
    except Exception as error:  # the usual road meets it again, and knows what to answer
        # Without its words: they may be the caller's.
        log.warning("%s in %s: the line goes the usual road", type(error).__name__, scope["path"])
        return None
    finally:
        asking.cancel()  # in the engine, too, if it runs
        leaving.cancel()


_KNOWN: Final = {
    "/v1/chat/completions": (
        "chat_completion",
        "ChatCompletionRequest",
        "openai_serving_chat",
        "create_chat_completion",
    ),
    "/v1/completions": ("completion", "CompletionRequest", "openai_serving_completion", "create_completion"),
}


def _roads() -> dict[str, Road]:
    """Those that this vLLM has, by path."""
    found = {}
    for path, (room, request, handler, ask) in _KNOWN.items():
        with suppress(ImportError, AttributeError):
            protocol = import_module(f"vllm.entrypoints.openai.{room}.protocol")
            found[path] = Road(getattr(protocol, request), handler, ask)
    return found
