"""Adapter removal: an adapter that is unloaded leaves vLLM's engine core, too, not the server's list alone.

vLLM 0.32's `/v1/unload_lora_adapter` forgets the name only: the weights keep their slot until others push them out. We
keep the last slot empty, since base requests read what is in it (vllm#48421), so room has to be made at once. As an
ASGI middleware (vLLM's `--middleware`) this one removes the adapter from the core, and passes the request on.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

_PATH: Final = "/v1/unload_lora_adapter"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class AdapterRemoval:
    """The middleware."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Remove what is to be unloaded; let everything pass."""
        if scope["type"] != "http" or scope.get("path") != _PATH:
            await self._app(scope, receive, send)
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        state = scope["app"].state
        try:
            name = json.loads(body)["lora_name"]
        except (ValueError, KeyError, TypeError):
            name = None
        if found := state.openai_serving_models.lora_requests.get(name):
            await state.engine_client.remove_lora(found.lora_int_id)
        unread: list[Message] = [{"type": "http.request", "body": body}]

        async def again() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, again, send)
