"""The direct handler asks vLLM's handlers for lines and only for lines; what it can't answer goes the usual road."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.responses import JSONResponse

from penstock_worker.engine import headers
from penstock_worker.engine.vllm import direct_handler
from penstock_worker.engine.vllm.direct_handler import DirectHandler

if TYPE_CHECKING:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest, ChatCompletionResponse
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest, CompletionResponse
    from vllm.entrypoints.serve.engine.protocol import ErrorResponse

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
LINE = [(headers.LINE.encode(), b"1"), (b"x-request-id", b"abc")]
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "grüße"}], "temperature": 0}
Ask = Callable[[Any, Any], Awaitable[Any]]


@cache
def vllm() -> SimpleNamespace:
    """vLLM's own shapes; here, so that only whoever runs these tests waits for its import, and no other tester."""
    from vllm.entrypoints.openai.chat_completion import protocol as chat
    from vllm.entrypoints.openai.completion import protocol as completion
    from vllm.entrypoints.serve.engine import protocol as engine

    return SimpleNamespace(**(vars(completion) | vars(engine) | vars(chat)))


class ScriptedServer:
    """An ASGI application with handlers that do as they are told, and what it was asked on the usual road."""

    def __init__(self, chat: Ask, completion: Ask | None = None) -> None:
        self.state = SimpleNamespace(
            openai_serving_chat=SimpleNamespace(create_chat_completion=chat),
            openai_serving_completion=completion and SimpleNamespace(create_completion=completion),
        )
        self.usual: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message.get("more_body", False)
        self.usual.append(body)
        await send({"type": "http.response.start", "status": 418, "headers": []})
        await send({"type": "http.response.body", "body": b"usual"})


class Client:
    """One request, in as many pieces as are given; it stays, or leaves as soon as it is told."""

    def __init__(self, *pieces: bytes, leaves: bool = False) -> None:
        self._messages = [
            {"type": "http.request", "body": piece, "more_body": number + 1 < len(pieces)}
            for number, piece in enumerate(pieces)
        ]
        self._leaves = leaves
        self.told: list[Any] = []

    async def receive(self) -> Any:
        if self._messages:
            return self._messages.pop(0)
        if not self._leaves:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.told.append(message)

    @property
    def answer(self) -> tuple[int, bytes]:
        start, end = self.told
        return start["status"], end["body"]


def ask(server: ScriptedServer, client: Client, path: str = CHAT, headers: Any = LINE) -> None:
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "app": server}
    asyncio.run(asyncio.wait_for(DirectHandler(server)(scope, client.receive, client.send), 10))


def sent(**more: Any) -> bytes:
    return json.dumps(BODY | more).encode()


async def chats(asked: ChatCompletionRequest, raw: Any) -> ChatCompletionResponse:
    assert raw.headers["x-request-id"] == "abc"
    message = vllm().ChatMessage(role="assistant", content=f"{asked.messages[0]['content']} \u2028 zurück")
    choice = vllm().ChatCompletionResponseChoice(index=0, message=message, finish_reason="stop")
    return vllm().ChatCompletionResponse(model=asked.model, choices=[choice], usage=usage())  # type: ignore[no-any-return]


def usage() -> Any:
    return vllm().UsageInfo(prompt_tokens=3, completion_tokens=2, total_tokens=5)


async def is_not_asked(asked: Any, raw: Any) -> Any:
    raise AssertionError("the handler was asked")


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.LogCaptureFixture]:
    """What the direct handler logs; whether vLLM's loggers tell pytest's root depends on how vLLM was set up."""
    monkeypatch.setattr(direct_handler.log, "propagate", False)
    direct_handler.log.addHandler(caplog.handler)
    yield caplog
    direct_handler.log.removeHandler(caplog.handler)


def test_a_line_is_answered_by_the_handler_as_the_server_would_say_it() -> None:
    server, whole = ScriptedServer(chats), sent()
    client = Client(whole[:10], whole[10:])
    ask(server, client)
    status, body = client.answer
    read = json.loads(body)
    assert (status, server.usual) == (200, [])
    assert read["choices"][0]["message"]["content"] == "grüße \u2028 zurück"
    answer = vllm().ChatCompletionResponse.model_validate(read)
    assert json.loads(JSONResponse(answer.model_dump()).body) == read
    assert (b"content-length", b"%d" % len(body)) in client.told[0]["headers"]


def test_completions_have_the_shortcut_too_where_the_model_has_them() -> None:
    async def completes(asked: CompletionRequest, raw: Any) -> CompletionResponse:
        return vllm().CompletionResponse(model=asked.model or "", choices=[], usage=usage())  # type: ignore[no-any-return]

    body = json.dumps({"model": "tiny", "prompt": "once"}).encode()
    server, client = ScriptedServer(is_not_asked, completes), Client(body)
    ask(server, client, COMPLETION)
    assert client.answer[0] == 200
    without, client = ScriptedServer(is_not_asked), Client(body)
    ask(without, client, COMPLETION)
    assert (client.answer, without.usual) == ((418, b"usual"), [body])


def test_a_refusal_keeps_its_status() -> None:
    async def refuses(asked: Any, raw: Any) -> ErrorResponse:
        error = vllm().ErrorInfo(message="too long", type="BadRequestError", code=400)
        return vllm().ErrorResponse(error=error)  # type: ignore[no-any-return]

    client = Client(sent())
    ask(ScriptedServer(refuses), client)
    status, body = client.answer
    assert (status, json.loads(body)["error"]["message"]) == (400, "too long")


@pytest.mark.parametrize(
    ("body", "path", "headers"),
    [
        (sent(), CHAT, []),
        (sent(), "/v1/embeddings", LINE),
        (sent(stream=True), CHAT, LINE),
        (sent(max_tokens="many"), CHAT, LINE),
        (b"{no json", CHAT, LINE),
        (b"", CHAT, LINE),
    ],
)
def test_what_is_no_ordinary_line_goes_the_usual_road_with_all_its_bytes(
    logged: pytest.LogCaptureFixture, body: bytes, path: str, headers: Any
) -> None:
    server, client = ScriptedServer(is_not_asked), Client(body[:7], body[7:])
    ask(server, client, path, headers)
    assert (client.answer, server.usual, logged.messages) == ((418, b"usual"), [body], [])


def test_a_handler_that_fails_leaves_the_answer_to_the_usual_road_and_says_so(logged: pytest.LogCaptureFixture) -> None:
    async def fails(asked: Any, raw: Any) -> Any:
        raise ValueError("This model does not do grüße.")

    server, client = ScriptedServer(fails), Client(sent())
    ask(server, client)
    assert (client.answer, server.usual) == ((418, b"usual"), [sent()])
    assert logged.messages == [f"ValueError in {CHAT}: the line goes the usual road"]


def test_a_client_that_leaves_ends_the_asking() -> None:
    ended = []

    async def waits(asked: Any, raw: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    server, client = ScriptedServer(waits), Client(sent(), leaves=True)
    ask(server, client)
    assert (ended, client.told, server.usual) == (["cancelled"], [], [])
