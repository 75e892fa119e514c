"""Waiting calls through API, router, ingress and gate equal those to the real vLLM's own socket, as SDKs see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from e2e.live import Platform, until, up

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

MODEL = "tiny"
HELLO: list[Any] = [{"role": "user", "content": "What does the river say to the mill?"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome", "Oslo"]}, "warm": {"type": "boolean"}},
    "required": ["city", "warm"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
FORCED: Any = {"type": "function", "function": {"name": "weather"}}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA, "strict": True}}


@pytest.fixture(scope="module")
def path(short_dir: Path) -> Iterator[Platform]:
    """A platform with the real engine; float32, since greedy answers in bf16 depend on what else runs."""
    engine = (
        "--dtype=float32",
        "--max-model-len=512",
        "--max-num-seqs=16",
        "--enable-auto-tool-choice",
        "--tool-call-parser=hermes",
    )
    flags = [f"--engine-arg={argument}" for argument in engine]
    with up(short_dir / "vc", *flags, ready_seconds=420) as platform:
        count = "select count(*) from workers where open"
        until(lambda: platform.ask(count) == 1, "the ingress is open", 60)
        yield platform


@pytest.fixture(scope="module")
def engine(path: Platform) -> Iterator[openai.OpenAI]:
    """The SDK at the engine's own socket."""
    transport = httpx2.HTTPTransport(uds=str(path.engine_socket()))
    with openai.OpenAI(
        base_url="http://engine/v1", api_key="none", http_client=httpx2.Client(transport=transport), timeout=60
    ) as sdk:
        yield sdk


def plain(value: Any) -> Any:
    """An answer without what differs from one request to the next."""
    if isinstance(value, dict):
        return {
            name: plain(one)
            for name, one in value.items()
            if name not in ("id", "created", "created_at", "completed_at", "item_id")
        }
    return [plain(one) for one in value] if isinstance(value, list) else value


def whole(sdk: openai.OpenAI, **more: Any) -> Any:
    asked = {"model": MODEL, "messages": HELLO, "temperature": 0, "max_tokens": 24} | more
    return plain(sdk.chat.completions.create(**asked).model_dump())


def streamed(sdk: openai.OpenAI, **more: Any) -> list[Any]:
    asked = {"model": MODEL, "messages": HELLO, "temperature": 0, "max_tokens": 24, "stream": True} | more
    return [plain(chunk.model_dump()) for chunk in sdk.chat.completions.create(**asked)]


def deltas(chunks: list[Any]) -> dict[int, str]:
    """What a stream said, by choice: how many tokens an event holds, and of which choice, is the engine's whim."""
    said: dict[int, str] = {}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        delta = choice["delta"]
        calls = "".join(call["function"]["arguments"] or "" for call in delta["tool_calls"] or [])
        said[choice["index"]] = said.get(choice["index"], "") + (delta.get("content") or "") + calls
    return said


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "logprobs and a stop": {"logprobs": True, "top_logprobs": 2, "stop": ["zz"]},
    "several, drawn by a seed": {"n": 2, "temperature": 0.8, "seed": 7},
    "a tool": {"tools": TOOLS, "tool_choice": FORCED, "max_tokens": 64},
    "a schema": {"response_format": FORMAT, "max_tokens": 64},
    "an engine's own parameters": {"extra_body": {"top_k": 5, "min_p": 0.1, "ignore_eos": True, "seed": 7}},
}


@pytest.mark.parametrize("case", CASES)
def test_a_call_equals_the_engines_own(path: Platform, engine: openai.OpenAI, case: str) -> None:
    assert whole(path.sdk, **CASES[case]) == whole(engine, **CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_a_stream_equals_the_engines_own(path: Platform, engine: openai.OpenAI, case: str) -> None:
    more = CASES[case] | {"stream_options": {"include_usage": True}}
    ours, theirs = streamed(path.sdk, **more), streamed(engine, **more)
    assert deltas(ours) == deltas(theirs)
    assert ours[0] == theirs[0]
    assert ours[-1] == theirs[-1], "the usage"


@pytest.mark.parametrize(
    "ask",
    [
        lambda sdk: sdk.completions.create(model=MODEL, prompt="A river", temperature=0, max_tokens=12),
        lambda sdk: sdk.responses.create(model=MODEL, input="A river", temperature=0, max_output_tokens=12),
    ],
    ids=["completions", "responses"],
)
def test_the_other_endpoints_equal_the_engines_own(
    path: Platform, engine: openai.OpenAI, ask: Callable[[openai.OpenAI], Any]
) -> None:
    assert plain(ask(path.sdk).model_dump()) == plain(ask(engine).model_dump())


def test_a_response_streams(path: Platform, engine: openai.OpenAI) -> None:
    def text(sdk: openai.OpenAI) -> list[Any]:
        events = sdk.responses.create(model=MODEL, input="A river", temperature=0, max_output_tokens=12, stream=True)
        kinds = [(event.type, getattr(event, "delta", "")) for event in events]
        return [kinds[0][0], "".join(delta for _, delta in kinds if isinstance(delta, str)), kinds[-1][0]]

    assert text(path.sdk) == text(engine)


def test_what_the_engine_refuses_or_lacks_is_told_in_openais_words(path: Platform) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        whole(path.sdk, max_tokens=100_000)
    assert refused.value.code is None or isinstance(refused.value.code, str)
    assert refused.value.message
    with pytest.raises(openai.NotFoundError) as lacking:
        path.sdk.embeddings.create(model=MODEL, input="a")
    assert lacking.value.code == "unsupported_endpoint"
    for endpoint, body in (("/score", {"text_1": "a", "text_2": "b"}), ("/rerank", {"query": "a", "documents": ["b"]})):
        answer = path.http.post(endpoint, json={"model": MODEL, **body})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unsupported_endpoint")


def test_a_client_that_leaves_frees_the_engine(path: Platform) -> None:
    stream = path.sdk.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=480, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()
    transport = httpx2.HTTPTransport(uds=str(path.engine_socket()))
    with httpx2.Client(transport=transport) as client:

        def idle() -> bool:
            lines = client.get("http://engine/metrics").text.splitlines()
            return any(line.startswith("vllm:num_requests_running") and line.endswith(" 0.0") for line in lines)

        until(idle, "nothing runs in the engine", 20)
