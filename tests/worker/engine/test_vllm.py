"""The real vLLM under its supervisor: ready, answers, and goes with its worker. One start, a minute or more."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from worker.engines import ended, worker_like

from penstock.domain.engines.profiles import VLLM
from penstock.domain.work.rank import Rank
from penstock.formats.engine_body import for_call, for_line, with_priority
from penstock_worker.budget.budget_loop import engine_load
from penstock_worker.engine.client import EngineAnswer, EngineClient, EngineGone
from penstock_worker.engine.process.guard import members

CHAT = "/v1/chat/completions"


async def ask(socket: Path, body: dict[str, object]) -> tuple[EngineAnswer, str]:
    """One chat completion, and the engine's metrics after it."""
    async with EngineClient(socket=socket) as client:
        answer = await client.ask(CHAT, json.dumps(body).encode(), 60)
        return answer, await client.metrics()


BODIES: dict[str, dict[str, object]] = {
    CHAT: {"messages": [{"role": "user", "content": "word " * 60}], "max_tokens": 4, "temperature": 0},
    "/v1/completions": {"prompt": "word " * 60, "max_tokens": 4, "temperature": 0},
    "/v1/responses": {"input": "word " * 60, "max_output_tokens": 4, "temperature": 0},
    "/tokenize": {"prompt": "word " * 60},
}


async def check_ranks_and_salts(socket: Path) -> None:
    """Every endpoint takes a priority and a salt and answers the same; one tenant's cache is not another's."""

    def said(answer: EngineAnswer) -> object:
        body = json.loads(answer.body)
        texts = [choice.get("text") or choice["message"]["content"] for choice in body.get("choices", ())]
        return answer.status, texts or body.get("tokens") or body["output"][0]["content"][0]["text"]

    async def cached(client: EngineClient, tenant: str) -> int:
        raw = json.dumps(BODIES[CHAT] | {"model": "tiny", "messages": [{"role": "user", "content": "x " * 150}]})
        answer = await client.ask(CHAT, for_call(raw.encode(), CHAT, tenant, isolate=True).body, 60)
        return json.loads(answer.body)["usage"]["prompt_tokens_details"]["cached_tokens"]

    async with EngineClient(socket=socket) as client:
        for endpoint, body in BODIES.items():
            raw = json.dumps({"model": "tiny", **body}).encode()
            call = for_call(raw, endpoint, "tenant", isolate=True)
            plain = await client.ask(endpoint, raw, 60)
            ranked = await client.ask(endpoint, with_priority(call.body, Rank.REALTIME.priority()), 60)
            line = await client.ask(endpoint, for_line(raw, endpoint, "tenant", True, Rank.FLEX.priority()), 60)
            assert said(plain) == said(ranked) == said(line), endpoint
            assert plain.status == 200, endpoint
        assert await cached(client, "a") == 0
        assert await cached(client, "a") > 0
        assert await cached(client, "b") == 0
        assert VLLM.load
        load = engine_load(await client.metrics(), VLLM.load)
        assert load
        assert (load.running, load.waiting, load.preemptions) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.timeout(420)
def test_vllm_becomes_ready_answers_and_dies_with_its_worker(short_dir: Path, tiny_model: Path) -> None:
    folder = short_dir / "vllm"
    options = ["--max-num-seqs=16", "--max-model-len", "512"]
    with worker_like("vllm", "tiny", str(tiny_model), folder, *options) as worker:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 8, "seed": 1}
        answer, metrics = asyncio.run(ask(folder / "e.sock", body))
        said = json.loads(answer.body)
        assert answer.status == 200
        assert said["id"] == f"chatcmpl-{answer.request_id}"
        assert said["choices"][0]["message"]["content"]
        assert said["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        assert 'vllm:num_requests_running{engine="0",model_name="tiny"}' in metrics
        assert "--max-num-seqs 26 " in (folder / "engine.log").read_text()

        asyncio.run(check_ranks_and_salts(folder / "e.sock"))

        guard = worker.engine[0]
        family = {process.pid: process for process in (*worker.engine, *members(guard.pid, guard.pid))}
        assert len(family) >= 3, "guard, API server and EngineCore"
        os.kill(worker.process.pid, signal.SIGKILL)
        for process in family.values():
            assert ended(process, 5.0)
        assert members(guard.pid) == []
        with pytest.raises(EngineGone):
            asyncio.run(ask(folder / "e.sock", body))
