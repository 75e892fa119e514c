"""A batch through the real vLLM gives, line by line, what the same engine answers when it is asked directly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from e2e.live import CHAT, Platform, chat, said, up

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(420)]

LINES = 100
AT_ONCE = 32


@pytest.fixture(scope="module")
def vllm(short_dir: Path) -> Iterator[Platform]:
    """A platform with the real engine; float32, since greedy answers in bf16 depend on what else runs."""
    flags = ("--engine-arg=--dtype=float32", "--engine-arg=--max-model-len=512", "--engine-arg=--max-num-seqs=32")
    # The engine may keep the cores from the cache for longer than its usual 0.1 s.
    with up(short_dir / "v", *flags, ready_seconds=360, cache_timeout_seconds="10") as platform:
        yield platform


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
