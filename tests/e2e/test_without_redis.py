"""Redis never started: nobody hears a hint, so workers ask Postgres themselves, and batches complete all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest
from e2e.live import CHAT, ENDED, chat, jsonl, said, until

from penstock.stack.valkey import free_port

KEY = "sk-penstock-without-redis"


@dataclass
class Processes:
    """The platform's processes, each started by itself."""

    url: str
    gpu: subprocess.Popen[bytes]
    io: subprocess.Popen[bytes]


@pytest.fixture
def processes(database_url: str, short_dir: Path, tmp_path: Path) -> Iterator[Processes]:
    """API, keeper, io and gpu worker on a Redis address where nobody listens."""
    port = free_port()
    environment = os.environ | {
        "PENSTOCK_DATABASE_URL": database_url,
        "PENSTOCK_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "PENSTOCK_BLOB_URL": f"file://{tmp_path}/blobs",
        "PENSTOCK_SCRATCH_DIR": str(tmp_path),
        "PENSTOCK_LOG_DIR": str(tmp_path),
        "PENSTOCK_RUNTIME_DIR": str(short_dir / "no-redis"),
        "PENSTOCK_BOOTSTRAP_KEY": KEY,
        "PENSTOCK_POLL_SECONDS": "0.5",
    }
    commands = {
        "api": ["penstock.cli.main", "api", "--port", str(port)],
        "keeper": ["penstock.cli.main", "keeper"],
        "io": ["penstock_worker", "io"],
        "gpu": ["penstock_worker", "gpu", "--model", "tiny=echo", "--engine", "echo"],
    }
    with ExitStack() as stack:
        started = {}
        for name, command in commands.items():
            log = stack.enter_context((tmp_path / f"{name}.log").open("wb"))
            process = subprocess.Popen([sys.executable, "-m", *command], env=environment, stdout=log, stderr=log)
            stack.callback(_end, process)
            started[name] = process
        url = f"http://127.0.0.1:{port}"
        until(lambda: _answers(f"{url}/health/work"), lambda: (tmp_path / "gpu.log").read_text()[-2_000:], 60)
        yield Processes(url, started["gpu"], started["io"])


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait(20)


def test_a_batch_and_a_job_complete_with_redis_never_started(processes: Processes) -> None:
    with openai.OpenAI(base_url=f"{processes.url}/v1", api_key=KEY, timeout=60) as sdk:
        lines = [chat(f"line-{number}", f"say {number}") for number in range(1_200)]
        file = sdk.files.create(file=("requests.jsonl", jsonl(lines)), purpose="batch")
        batch = sdk.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        until(lambda: sdk.batches.retrieve(batch.id).status in ENDED, "the batch has ended", 60)
        batch = sdk.batches.retrieve(batch.id)
        assert batch.status == "completed"
        answers = sdk.files.content(batch.output_file_id or "").content.splitlines()
    assert len(answers) == 1_200
    body = {"messages": [{"role": "user", "content": "alone"}]}
    with httpx.Client(base_url=processes.url, headers={"authorization": f"Bearer {KEY}"}, timeout=60) as http:
        job = http.post("/v1/jobs", json={"model": "tiny", "endpoint": CHAT, "body": body}).json()
        job = http.get(f"/v1/jobs/{job['id']}", params={"wait": 30}).json()
    assert job["status"] == "completed"
    assert "alone" in said(job["results"][0])


def test_workers_end_at_sigterm_with_redis_away(processes: Processes) -> None:
    for process in (processes.io, processes.gpu):
        process.send_signal(signal.SIGTERM)
    for process in (processes.io, processes.gpu):
        process.wait(20)
