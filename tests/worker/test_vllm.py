"""The real vLLM under its supervisor: ready, answers, and goes with its worker. One start, a minute or more."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from worker.engines import ended, worker_like

from penstock_worker.engine.client import Answer, EngineClient, EngineGone
from penstock_worker.engine.guard import members


async def ask(socket: Path, body: dict[str, object]) -> tuple[Answer, str]:
    """One chat completion, and the engine's metrics after it."""
    async with EngineClient(socket=socket) as client:
        answer = await client.ask("/v1/chat/completions", json.dumps(body).encode(), 60)
        return answer, await client.metrics()


@pytest.mark.vllm
@pytest.mark.timeout(420)
def test_vllm_becomes_ready_answers_and_dies_with_its_worker(short_dir: Path, tmp_path: Path) -> None:
    model = tmp_path / "tiny"
    subprocess.run([sys.executable, "-m", "penstock_worker.engine.tiny", str(model)], check=True, capture_output=True)
    folder = short_dir / "vllm"
    options = ["--max-num-seqs=16", "--max-model-len", "512"]
    with worker_like("vllm", "tiny", str(model), folder, *options) as worker:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 8, "seed": 1}
        answer, metrics = asyncio.run(ask(folder / "e.sock", body))
        said = json.loads(answer.body)
        assert answer.status == 200
        assert said["id"] == f"chatcmpl-{answer.request_id}"
        assert said["choices"][0]["message"]["content"]
        assert said["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        assert 'vllm:num_requests_running{engine="0",model_name="tiny"}' in metrics
        assert "--max-num-seqs 18 " in (folder / "engine.log").read_text()

        guard = worker.engine[0]
        family = {process.pid: process for process in (*worker.engine, *members(guard.pid, guard.pid))}
        assert len(family) >= 3, "guard, API server and EngineCore"
        os.kill(worker.process.pid, signal.SIGKILL)
        for process in family.values():
            assert ended(process, 5.0)
        assert members(guard.pid) == []
        with pytest.raises(EngineGone):
            asyncio.run(ask(folder / "e.sock", body))
