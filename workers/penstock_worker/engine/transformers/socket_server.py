"""`transformers serve` on a unix socket.

    python -m penstock_worker.engine.transformers.socket_server --uds SOCK --model FOLDER --served-model-name NAME …

It only knows how to listen on TCP, where everybody on this machine could ask it without a key. So its own application
is served here, by the same uvicorn, on the worker's socket, behind a layer that translates requests (request.py) and
calls the model by the name that clients use.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import msgspec

from penstock_worker.engine.transformers.request import Unsupported, translated

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

_KEEP_ALIVE_SECONDS: Final = 600


class Translated:
    """The engine's application, as clients of Penstock speak to one (ASGI)."""

    def __init__(self, inner: Application, source: str, model: str) -> None:
        self._inner = inner
        self._source = source
        self._model = model
        # As both of its writers spell it, JSONResponse and pydantic, with the revision behind it.
        self._theirs = b'"model":' + msgspec.json.encode(f"{source}@main")
        self._ours = b'"model":' + msgspec.json.encode(model)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
        elif scope["path"] == "/v1/models":
            entry = {"id": self._model, "object": "model", "owned_by": "transformers", "created": 0}
            await _answer(send, 200, {"object": "list", "data": [entry]})
        elif scope["method"] == "POST":
            await self._post(scope, receive, send)
        else:
            await self._inner(scope, receive, send)

    async def _post(self, scope: Message, receive: Receive, send: Send) -> None:
        pieces, more = [], True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        try:
            body = translated(b"".join(pieces), self._source)
        except Unsupported as error:
            told = {"message": str(error), "type": "invalid_request_error", "param": error.field}
            await _answer(send, 400, {"error": {**told, "code": "unsupported_parameter"}})
            return
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
        headers.append((b"content-length", b"%d" % len(body)))
        given = False

        async def receive_ours() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send_ours(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The name may have another length; uvicorn says where the answer ends.
                message["headers"] = [one for one in message["headers"] if one[0].lower() != b"content-length"]
            elif message.get("body"):
                message["body"] = message["body"].replace(self._theirs, self._ours)
            await send(message)

        await self._inner({**scope, "headers": headers}, receive_ours, send_ours)


async def _answer(send: Send, status: int, body: object) -> None:
    data = msgspec.json.encode(body)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})


def main() -> None:
    """Read the command line; what is not ours is for `transformers serve`."""
    parser = argparse.ArgumentParser(prog="socket_server", description="`transformers serve` on a unix socket.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--uds", required=True)
    given, rest = parser.parse_known_args()
    import uvicorn

    config = uvicorn.Config

    def on_socket(app: Application, **_: object) -> uvicorn.Config:
        return config(
            Translated(app, given.model, given.served_model_name),
            uds=given.uds,
            log_level="warning",
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )

    uvicorn.Config = on_socket  # type: ignore[assignment,misc]
    from transformers.cli import transformers as command

    # Not `command.main`: it asks the network for a newer version first.
    command.app(["serve", given.model, *rest], prog_name="transformers")
    sys.exit("error: `transformers serve` has ended by itself")


if __name__ == "__main__":
    main()
