"""One platform with the real vLLM: batches and waiting calls give what the engine's own socket answers.

Both are in one file, so that they share one start of the engine.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import openai
import pytest
from console.browser import running
from console.journey import travel
from e2e.live import CHAT, Platform, chat, said, until, up

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

LINES = 100
AT_ONCE = 32
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
def vllm(short_dir: Path) -> Iterator[Platform]:
    """A platform with the real engine; float32, since greedy answers in bf16 depend on what else runs."""
    engine = (
        "--dtype=float32",
        "--max-model-len=512",
        "--max-num-seqs=32",
        "--enable-auto-tool-choice",
        "--tool-call-parser=hermes",
    )
    flags = [f"--engine-arg={argument}" for argument in engine]
    # The engine may keep the cores from the cache for longer than its usual 0.1 s.
    with up(short_dir / "v", *flags, ready_seconds=420, cache_timeout_seconds="10") as platform:
        until(lambda: platform.ask("select count(*) from workers where open") == 1, "the ingress is open", 60)
        yield platform


def test_a_person_goes_from_a_file_with_a_fault_to_answers_in_the_console(vllm: Platform, tmp_path: Path) -> None:
    with running() as browser:  # here alone: it holds the thread's event loop
        travel(browser, vllm, tmp_path)


def test_vllms_own_loader_found_what_penstock_puts_into_its_engine(vllm: Platform) -> None:
    logs = "".join(file.read_text(errors="replace") for file in vllm.data.rglob("*.log"))
    assert "Beside more urgent lines those of less urgent lanes get one in 8 seconds." in logs
    assert "Beside waiting calls the prompts of lines are bounded." in logs


def requests() -> list[dict[str, Any]]:
    """Chats of different lengths, some with a shared first message."""
    return [
        chat(
            f"line-{n}",
            f"Question {n}: what does number {n * 37 % 101} mean" + " to a river" * (n % 7) + "?",
            temperature=0,
            max_tokens=8 + n % 25,
        )
        for n in range(LINES)
    ]


async def directly(socket: Path, bodies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ask the engine itself, over its socket, some at once."""
    room = asyncio.Semaphore(AT_ONCE)

    async def ask(session: aiohttp.ClientSession, body: dict[str, Any]) -> dict[str, Any]:
        async with room, session.post(f"http://engine{CHAT}", data=json.dumps(body).encode(), headers=json_) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    json_ = {"content-type": "application/json"}
    connector = aiohttp.UnixConnector(str(socket), limit=AT_ONCE, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        return await asyncio.gather(*(ask(session, body) for body in bodies))


def counted(answer: dict[str, Any]) -> tuple[int, int]:
    return answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]


def test_each_answer_of_a_batch_equals_what_the_engine_answers_directly(vllm: Platform) -> None:
    lines = requests()
    batch = vllm.ended(vllm.submit(lines).id, 240)
    assert batch.status == "completed"
    assert batch.request_counts
    assert (batch.request_counts.total, batch.request_counts.completed) == (LINES, LINES)
    output = vllm.file(batch.output_file_id)
    assert [line["custom_id"] for line in output] == [line["custom_id"] for line in lines]

    direct = asyncio.run(directly(vllm.engine_socket(), [line["body"] for line in lines]))
    assert [said(line) for line in output] == [answer["choices"][0]["message"]["content"] for answer in direct]
    assert [counted(line["response"]["body"]) for line in output] == [counted(answer) for answer in direct]
    assert len({said(line) for line in output}) > LINES // 2, "different questions have different answers"
    assert batch.usage
    assert batch.usage.input_tokens == sum(counted(answer)[0] for answer in direct)
    assert batch.usage.output_tokens == sum(counted(answer)[1] for answer in direct)


def test_answers_are_the_same_with_every_reuse_on_and_off(vllm: Platform) -> None:
    """Equal lines, asked each, once, and from the cache; and a call that waits."""
    lines = [line | {"custom_id": f"{copy}-{n}"} for copy in range(3) for n, line in enumerate(requests()[:30])]
    ways: list[dict[str, Any]] = [
        {"dedup": False, "cache": {"mode": "off"}},
        {"cache": {"mode": "off"}},
        {"cache": {"mode": "refresh"}},
        {"cache": {"mode": "on"}},
    ]
    cached, answers = [], []
    for way in ways:
        batch = vllm.ended(vllm.submit(lines, **way).id, 240)
        output = vllm.file(batch.output_file_id)
        assert [line["custom_id"] for line in output] == [line["custom_id"] for line in lines]
        cached.append(sum("cached" in line["response"] for line in output))
        answers.append([said(line) for line in output])
    assert cached == [0, 60, 60, 90]
    assert answers[0] == answers[1] == answers[2] == answers[3]
    body = lines[7]["body"]
    call = vllm.http.post("/chat/completions", json=body, headers={"x-penstock-cache": "on"})
    assert call.headers["x-penstock-cache"] == "hit"
    assert call.json()["choices"][0]["message"]["content"] == answers[0][7]


@pytest.fixture(scope="module")
def engine(vllm: Platform) -> Iterator[openai.OpenAI]:
    """The SDK at the engine's own socket."""
    transport = httpx2.HTTPTransport(uds=str(vllm.engine_socket()))
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
def test_a_call_equals_the_engines_own(vllm: Platform, engine: openai.OpenAI, case: str) -> None:
    assert whole(vllm.sdk, **CASES[case]) == whole(engine, **CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_a_stream_equals_the_engines_own(vllm: Platform, engine: openai.OpenAI, case: str) -> None:
    more = CASES[case] | {"stream_options": {"include_usage": True}}
    ours, theirs = streamed(vllm.sdk, **more), streamed(engine, **more)
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
    vllm: Platform, engine: openai.OpenAI, ask: Callable[[openai.OpenAI], Any]
) -> None:
    assert plain(ask(vllm.sdk).model_dump()) == plain(ask(engine).model_dump())


def test_a_response_streams(vllm: Platform, engine: openai.OpenAI) -> None:
    def text(sdk: openai.OpenAI) -> list[Any]:
        events = sdk.responses.create(model=MODEL, input="A river", temperature=0, max_output_tokens=12, stream=True)
        kinds = [(event.type, getattr(event, "delta", "")) for event in events]
        return [kinds[0][0], "".join(delta for _, delta in kinds if isinstance(delta, str)), kinds[-1][0]]

    assert text(vllm.sdk) == text(engine)


def test_what_the_engine_refuses_or_lacks_is_told_in_openais_words(vllm: Platform) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        whole(vllm.sdk, max_tokens=100_000)
    assert refused.value.code is None or isinstance(refused.value.code, str)
    assert refused.value.message
    with pytest.raises(openai.NotFoundError) as lacking:
        vllm.sdk.embeddings.create(model=MODEL, input="a")
    assert lacking.value.code == "unsupported_endpoint"
    for endpoint, body in (("/score", {"text_1": "a", "text_2": "b"}), ("/rerank", {"query": "a", "documents": ["b"]})):
        answer = vllm.http.post(endpoint, json={"model": MODEL, **body})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unsupported_endpoint")


def test_a_client_that_leaves_frees_the_engine(vllm: Platform) -> None:
    stream = vllm.sdk.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=480, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()
    transport = httpx2.HTTPTransport(uds=str(vllm.engine_socket()))
    with httpx2.Client(transport=transport) as client:

        def idle() -> bool:
            lines = client.get("http://engine/metrics").text.splitlines()
            return any(line.startswith("vllm:num_requests_running") and line.endswith(" 0.0") for line in lines)

        until(idle, "nothing runs in the engine", 20)
