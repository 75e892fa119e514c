"""What is unloaded leaves vLLM's core before its server forgets the name; a played server and core."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from penstock_worker.engine.vllm.adapter_removal import AdapterRemoval

UNLOAD = "/v1/unload_lora_adapter"


def passed(path: str, pieces: list[bytes]) -> tuple[list[int], bytes]:
    """Which adapters the core was told to remove, and the body that the server behind got."""
    removed: list[int] = []
    got = b""

    async def remove(id: int) -> bool:
        removed.append(id)
        return True

    async def server(scope: Any, receive: Any, send: Any) -> None:
        nonlocal got
        while True:
            message = await receive()
            got += message["body"]
            if not message.get("more_body"):
                return

    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append({"type": "http.request", "body": b""})

    async def receive() -> Any:
        return messages.pop(0)

    loaded = {"sql@1": SimpleNamespace(lora_int_id=7)}
    state = SimpleNamespace(
        openai_serving_models=SimpleNamespace(lora_requests=loaded), engine_client=SimpleNamespace(remove_lora=remove)
    )
    scope = {"type": "http", "path": path, "app": SimpleNamespace(state=state)}
    asyncio.run(AdapterRemoval(server)(scope, receive, None))  # type: ignore[arg-type] # nothing is sent
    return removed, got


@pytest.mark.parametrize(
    ("path", "body", "removed"),
    [
        (UNLOAD, json.dumps({"lora_name": "sql@1"}).encode(), [7]),
        (UNLOAD, json.dumps({"lora_name": "other"}).encode(), []),
        (UNLOAD, b"no JSON", []),
        (UNLOAD, b"[]", []),
        ("/v1/load_lora_adapter", json.dumps({"lora_name": "sql@1"}).encode(), []),
    ],
)
def test_it_is_removed_from_the_core_and_the_request_goes_on_whole(path: str, body: bytes, removed: list[int]) -> None:
    assert passed(path, [body[:5], body[5:]]) == (removed, body)
