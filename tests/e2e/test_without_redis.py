"""Redis never started: nobody hears a hint, so workers ask Postgres themselves, and batches complete all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.live import CHAT, chat, said
from faults.house import House

from penstock.stack.ports import free_port


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    """API, keeper, io and gpu worker on a Redis address where nobody listens."""
    with House(database_url, f"redis://127.0.0.1:{free_port()}/0", tmp_path, poll_seconds="0.5") as house:
        yield house


def test_a_batch_and_a_job_complete_with_redis_never_started(house: House) -> None:
    lines = [chat(f"line-{number}", f"say {number}") for number in range(1_200)]
    batch = house.client.ended(house.client.submit(lines).id)
    assert batch.status == "completed"
    assert len(house.client.file(batch.output_file_id)) == 1_200
    body = {"messages": [{"role": "user", "content": "alone"}]}
    http = house.client.http
    job = http.post("/jobs", json={"model": "tiny", "endpoint": CHAT, "body": body}).json()
    job = http.get(f"/jobs/{job['id']}", params={"wait": 30}).json()
    assert job["status"] == "completed"
    assert "alone" in said(job["results"][0])


@pytest.mark.slow
def test_workers_end_at_sigterm_with_redis_away(house: House) -> None:
    for name in ("io-1", "gpu-1"):
        house.terminate(name)
    for name in ("io-1", "gpu-1"):
        house.wait(name, 20)
