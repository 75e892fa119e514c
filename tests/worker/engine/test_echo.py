"""The echo engine speaks as an engine does, says that it is none, and does what its markers say."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from api import contract
from worker.engines import echo_launch, wait_ready

from penstock.domain.inference_endpoints import BATCHED
from penstock_worker.engine.client import EngineAnswer, EngineClient, EngineGone, EngineTimeout
from penstock_worker.engine.process import probe
from penstock_worker.engine.process.supervisor import Supervisor

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def engine(short_dir: Path) -> Iterator[Supervisor]:
    folder = short_dir / "echo"
    launch = echo_launch(folder, "--max-num-seqs", "2")
    with Supervisor(launch, runtime_dir=folder, log_path=folder / "engine.log") as supervisor:
        wait_ready(supervisor, 30)
        yield supervisor


def post(engine: Supervisor, endpoint: str, body: dict[str, Any] | bytes, timeout: float = 10.0) -> EngineAnswer:
    async def ask() -> EngineAnswer:
        async with EngineClient(socket=engine.launch.socket) as client:
            return await client.ask(endpoint, body if isinstance(body, bytes) else json.dumps(body).encode(), timeout)

    return asyncio.run(ask())


def chat(engine: Supervisor, prompt: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]
    answer = post(engine, CHAT, {"model": "echo", "messages": messages, **more})
    assert answer.status == 200
    return dict(json.loads(answer.body))


def test_it_says_that_it_is_simulated(engine: Supervisor) -> None:
    listing = probe.get(engine.launch.socket, "/v1/models", 5.0)
    assert listing
    assert json.loads(listing[1])["data"][0]["owned_by"] == "penstock-echo (simulated)"
    assert "it is no model" in engine.log_path.read_text()


def test_the_answer_is_the_last_user_message_and_usage_adds_up(engine: Supervisor) -> None:
    said = chat(engine, "Grüße aus 東京")
    usage = said["usage"]
    assert said["choices"][0]["message"] == {"role": "assistant", "content": "Grüße aus 東京", "refusal": None}
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert "cached_tokens" in usage["prompt_tokens_details"]


def test_a_prefix_that_came_before_is_cached(engine: Supervisor) -> None:
    prefix = {"role": "system", "content": "x" * 640}
    body = {"messages": [prefix, {"role": "user", "content": "a"}]}
    cached = [
        json.loads(post(engine, CHAT, body).body)["usage"]["prompt_tokens_details"]["cached_tokens"] for _ in "ab"
    ]
    assert cached == [0, 160]


def test_tokens_lengthen_an_answer_and_max_tokens_cuts_its_count(engine: Supervisor) -> None:
    long = chat(engine, "hi [[tokens 40]]")
    assert long["usage"]["completion_tokens"] == 40
    assert long["choices"][0]["message"]["content"].startswith("hi [[tokens 40]] echo")
    cut = chat(engine, "hi [[tokens 40]]", max_tokens=7)
    assert (cut["usage"]["completion_tokens"], cut["choices"][0]["finish_reason"]) == (7, "length")


BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": [{"type": "text", "text": "a b"}]}]},
    "/v1/completions": {"prompt": "a b"},
    "/v1/embeddings": {"input": ["a b", "c"]},
    "/v1/responses": {"input": "a b"},
    "/v1/score": {"text_1": "a b", "text_2": ["a b", "c"]},
    "/v1/rerank": {"query": "a b", "documents": ["c", "a b"]},
}


@pytest.mark.parametrize("endpoint", BATCHED)
def test_every_endpoint_of_a_batch_answers_with_usage(engine: Supervisor, endpoint: str) -> None:
    answer = post(engine, endpoint, {"model": "echo", **BODIES[endpoint]})
    assert answer.status == 200
    assert json.loads(answer.body)["usage"]["total_tokens"] > 0


def test_embeddings_are_the_same_as_numbers_and_in_base64(engine: Supervisor) -> None:
    plain = json.loads(post(engine, "/v1/embeddings", {"input": "a"}).body)["data"][0]["embedding"]
    packed = json.loads(post(engine, "/v1/embeddings", {"input": "a", "encoding_format": "base64"}).body)
    assert struct.unpack("<8f", base64.b64decode(packed["data"][0]["embedding"])) == pytest.approx(plain, rel=1e-6)


def test_a_stream_ends_with_usage_if_asked_and_done(engine: Supervisor) -> None:
    body = {"messages": [{"role": "user", "content": "one two"}], "stream": True}
    answer = post(engine, CHAT, body | {"stream_options": {"include_usage": True}})
    *events, done, rest = answer.body.decode().split("\n\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    said = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
    assert (said, done, rest) == ("one two", "data: [DONE]", "")
    assert chunks[-1]["usage"]["total_tokens"] > 0


@dataclass
class Stream:
    """A stream as it came: its events, when each came, and whether it ended as it should."""

    events: list[str]
    at: list[float]
    whole: bool

    @property
    def said(self) -> str:
        chunks = [json.loads(event.partition("data: ")[2]) for event in self.events if not event.endswith("[DONE]")]
        return "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c.get("choices"))


def stream(engine: Supervisor, prompt: str, events: int | None = None) -> Stream:
    """Read a stream of a chat, or so many events of it and leave then."""

    async def read() -> Stream:
        found = Stream([], [], True)
        body = json.dumps({"messages": [{"role": "user", "content": prompt}], "stream": True}).encode()
        connector = aiohttp.UnixConnector(str(engine.launch.socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(f"http://engine{CHAT}", data=body) as response,
        ):
            try:
                while event := await response.content.readuntil(b"\n\n"):
                    found.events.append(event.decode().rstrip())
                    found.at.append(time.monotonic())
                    if len(found.events) == events:
                        response.close()
                        return found
            except aiohttp.ClientError:
                found.whole = False
        return found

    return asyncio.run(asyncio.wait_for(read(), 30))


def metric(engine: Supervisor, name: str) -> float:
    page = probe.get(engine.launch.socket, "/metrics", 5.0)
    assert page
    return next(float(row.split()[-1]) for row in page[1].decode().splitlines() if row.startswith(name))


@pytest.fixture
def slow(short_dir: Path) -> Iterator[Supervisor]:
    """An engine of one test's own: 30 ms to the first token, 20 ms to each further one."""
    with tempfile.TemporaryDirectory(dir=short_dir) as name:
        folder = Path(name)
        more = ("--latency-ms=30", "--itl-ms=20", "--kv-usage=0.5", "--preemptions=3", "--lora-modules", "one=/a")
        launch = echo_launch(folder, *more)
        with Supervisor(launch, runtime_dir=folder, log_path=folder / "engine.log") as supervisor:
            wait_ready(supervisor, 30)
            yield supervisor


def test_a_stream_has_an_event_for_each_token_that_is_wished_for_and_says_the_same_as_the_whole(
    slow: Supervisor,
) -> None:
    begun = time.monotonic()
    found = stream(slow, "hi [[tokens 12]]")
    whole = json.loads(post(slow, CHAT, {"messages": [{"role": "user", "content": "hi [[tokens 12]]"}]}).body)[
        "choices"
    ][0]["message"]["content"]
    assert (found.said, found.whole) == (whole, True)
    assert len(found.events) == 12 + 3  # the role, the end, [DONE]
    assert found.at[0] - begun >= 0.03
    assert found.at[12] - begun >= 0.03 + 11 * 0.02


def test_a_client_that_leaves_a_stream_is_counted_as_aborted(slow: Supervisor) -> None:
    assert stream(slow, "hi [[tokens 10000]]", events=3).events
    deadline = time.monotonic() + 10
    while metric(slow, "echo:requests_aborted") != 1:
        assert time.monotonic() < deadline
    assert metric(slow, "vllm:num_requests_running") == 0


@pytest.mark.parametrize("fault", ["die", "break"])
def test_a_stream_can_be_cut_after_some_events(slow: Supervisor, fault: str) -> None:
    found = stream(slow, f"hi [[tokens 40]] [[{fault}-after 3]]")
    assert (len(found.events), found.whole) == (3, False)


def test_a_stream_can_stall_after_some_events(slow: Supervisor) -> None:
    assert len(stream(slow, "hi [[tokens 40]] [[stall-after 3]]", events=3).events) == 3


def test_a_dead_core_is_an_error_event_in_streams_and_a_500_elsewhere_and_then_the_end(slow: Supervisor) -> None:
    async def ask() -> EngineAnswer:
        async with EngineClient(socket=slow.launch.socket) as client:
            body = b'{"messages":[{"role":"user","content":"[[hang]]"}]}'
            hung = asyncio.create_task(client.ask(CHAT, body, 30))
            while await asyncio.to_thread(metric, slow, "vllm:num_requests_running") != 1:
                pass
            found.append(await asyncio.to_thread(stream, slow, "hi [[tokens 40]] [[core-dies-after 3]]"))
            return await hung

    found: list[Stream] = []
    assert asyncio.run(ask()).status == 500
    assert found[0].whole
    assert found[0].events[3].startswith('data: {"error":')
    assert found[0].events[4] == "data: [DONE]"
    assert wait_ready(slow, 30, generation=2) == 2


def test_a_stream_of_a_response_has_the_events_of_its_kind(engine: Supervisor) -> None:
    answer = post(engine, "/v1/responses", {"input": "one two", "stream": True})
    events = [json.loads(event.partition("data: ")[2]) for event in answer.body.decode().split("\n\n")[:-1]]
    assert events[0]["type"] == "response.created"
    assert [event["delta"] for event in events if event["type"] == "response.output_text.delta"] == ["one ", "two"]
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "one two"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def test_what_a_gate_and_a_door_look_at_is_there(slow: Supervisor) -> None:
    assert metric(slow, "vllm:kv_cache_usage_perc") == 0.5
    assert metric(slow, "vllm:num_preemptions_total") == 3
    listing = probe.get(slow.launch.socket, "/v1/models", 5.0)
    assert listing
    assert [card["id"] for card in json.loads(listing[1])["data"]] == ["echo", "one"]
    body = {"messages": [{"role": "user", "content": "x"}], "priority": 3, "model": "one"}
    assert post(slow, CHAT, body).status == 200
    assert json.loads(post(slow, "/tokenize", {"prompt": "12345678"}).body)["count"] == 2


def test_a_scripted_status_comes_as_often_as_it_says(engine: Supervisor) -> None:
    body = {"messages": [{"role": "user", "content": "[[status 429 times 2 after 1.5]]"}]}
    answers = [post(engine, CHAT, body) for _ in range(3)]
    assert [answer.status for answer in answers] == [429, 429, 200]
    assert [answer.retry_after_seconds for answer in answers] == [1.5, 1.5, None]


def test_nul_and_lone_surrogates_come_back_as_json_escapes(engine: Supervisor) -> None:
    body = {"messages": [{"role": "user", "content": "x [[surrogate]] [[nul]]"}]}
    answer = post(engine, CHAT, body)
    assert rb"x \ud800" in answer.body
    assert rb"\u0000" in answer.body
    lone = post(engine, CHAT, rb'{"messages":[{"role":"user","content":"\udc00"}]}')
    assert json.loads(lone.body)["choices"][0]["message"]["content"] == "\udc00"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"model":"echo"}', b"[" * 100_000])
def test_a_bad_body_is_a_400(engine: Supervisor, body: bytes) -> None:
    answer = post(engine, CHAT, body)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, 400)


def test_an_unknown_model_or_route_is_a_404(engine: Supervisor) -> None:
    assert post(engine, CHAT, {"model": "other"}).status == 404
    assert post(engine, "/v1/nothing", {}).status == 404


def test_no_more_run_than_it_has_sequences_for(engine: Supervisor) -> None:
    async def crowd() -> str:
        async with EngineClient(socket=engine.launch.socket) as client:
            body = b'{"messages":[{"role":"user","content":"[[hang]]"}]}'
            hung = [asyncio.create_task(client.ask(CHAT, body, 60)) for _ in range(7)]
            metrics = ""
            while "num_requests_waiting{" not in metrics or not metrics.count(" 2\n"):
                metrics = await client.metrics()
            for task in hung:
                task.cancel()
            await asyncio.gather(*hung, return_exceptions=True)
            return metrics

    metrics = asyncio.run(asyncio.wait_for(crowd(), 30))
    assert 'vllm:num_requests_running{engine="0",model_name="echo"} 5' in metrics


def test_a_hanging_request_is_a_timeout(engine: Supervisor) -> None:
    with pytest.raises(EngineTimeout):
        post(engine, CHAT, {"messages": [{"role": "user", "content": "[[hang]]"}]}, timeout=0.1)


def test_a_journal_holds_each_request_as_it_arrives_even_one_that_kills_the_engine(short_dir: Path) -> None:
    folder = short_dir / "journal"
    journal = folder / "asked"
    launch = echo_launch(folder, "--journal", str(journal))
    with Supervisor(launch, runtime_dir=folder, log_path=folder / "engine.log") as engine:
        wait_ready(engine, 30)
        chat(engine, "one\ttwo\nthree")
        post(engine, "/v1/completions", {"model": "echo", "prompt": "é" * 100})
        with pytest.raises(EngineGone):
            chat(engine, "four [[die]]")
        notes = [line.split("\t") for line in journal.read_text().splitlines()]
    assert [note[2] for note in notes] == ["one two three", "é" * 80, "four [[die]]"]
    assert all(float(at) > 0 and int(pid) > 0 for at, pid, _ in notes)


ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    CHAT: ("CreateChatCompletionResponse", {"messages": [{"role": "user", "content": "as they say"}]}),
    "/v1/completions": ("CreateCompletionResponse", {"prompt": ["as", "they say"]}),
    "/v1/embeddings": ("CreateEmbeddingResponse", {"input": "as they say"}),
    "/v1/responses": ("Response", {"input": "as they say"}),
}


@pytest.mark.parametrize("endpoint", ASKED)
@pytest.mark.parametrize("more", [{}, {"max_tokens": 1, "max_output_tokens": 1}, {"encoding_format": "float"}])
def test_its_answers_are_what_openai_says_that_they_are(
    engine: Supervisor, endpoint: str, more: dict[str, Any]
) -> None:
    schema, body = ASKED[endpoint]
    answer = post(engine, endpoint, body | more)
    assert answer.status == 200
    contract.check(schema, json.loads(answer.body))


@pytest.mark.parametrize(
    "wrong",
    [
        {"stream_options": 5, "stream": True}, {"messages": "x"}, {"messages": [5]}, {"max_tokens": "many"}, {"n": [1]},
        {"n": 2.5}, {"model": 5}, {"tools": {}}, {"metadata": []},
    ],
    ids=str,
)  # fmt: skip
def test_a_field_of_the_wrong_type_is_refused_as_vllm_refuses_it(engine: Supervisor, wrong: dict[str, Any]) -> None:
    answer = post(engine, CHAT, ASKED[CHAT][1] | wrong)
    told = json.loads(answer.body)["error"]
    assert (answer.status, told["code"]) == (400, 400)
    assert str(told["param"]).partition("[")[0] in wrong
