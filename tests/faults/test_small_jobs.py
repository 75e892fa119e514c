"""Small jobs that ride together outlive what happens to their worker: each ends once, with its own answer."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.cases import further
from faults.house import House
from faults.load import check

pytestmark = pytest.mark.timeout(300)

POINTS = ["slice.asking=kill", *further("slice.claimed=kill", "slice.flushing=kill", "segment.recorded=kill")]
JOBS = 40


@pytest.fixture(scope="module")
def house(build: Callable[..., House], journal: Path) -> House:
    """One gpu worker, whose leases are short."""
    return build(
        engine_arguments=[f"--journal={journal}", "--max-num-seqs=16", "--latency-ms=100", "--jitter=0.5"],
        lease_seconds="3",
        beat_seconds="1",
        worker_gone_seconds="4",
        flush_seconds="0.2",
    )


def post(house: House, name: str, more: str = "") -> list[str]:
    """So many jobs of one request each; their ids."""
    ids = []
    for n in range(JOBS):
        body = {"model": "tiny", "messages": [{"role": "user", "content": f"{name} {n} {more}".strip()}]}
        ids.append(house.client.http.post("/jobs", json={"body": body}).json()["id"])
    return ids


def end(house: House, id: str, seconds: float = 60.0) -> dict[str, Any]:
    """The job's one result, once it has ended."""

    def look() -> Any:
        job = house.client.http.get(f"/jobs/{id}?wait=20").json()
        return job["status"] == "completed" and job["results"]

    [result] = house.until(look, "a job's end", seconds)
    return dict(result)


def ended(house: House, ids: list[str], name: str) -> None:
    """All end, each with its own answer."""
    for n, id in enumerate(ids):
        said = end(house, id)["response"]["body"]["choices"][0]["message"]["content"]
        assert said.split()[:2] == [name, f"{n}"]
    check(house)


def ready(house: House) -> None:
    query = "select exists (select from workers where pid = %s and state = 'ready')"
    house.until(lambda: house.ask(query, house.pid("gpu-1")), "gpu-1 is ready")


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_is_killed_with_a_bundle_costs_no_job(house: House, point: str) -> None:
    name = point.partition("=")[0]
    house.kill("gpu-1")
    ids = post(house, name)
    house.start("gpu-1", failpoints=point)
    assert house.wait("gpu-1", 60) == -signal.SIGKILL
    house.start("gpu-1")
    ready(house)
    ended(house, ids, name)
    assert house.ask("select max(crashes) from slices where batch = any(%s)", ids) <= 1


@pytest.mark.slow
def test_a_worker_that_is_told_to_end_gives_its_jobs_back_without_a_penalty(house: House) -> None:
    house.kill("gpu-1")
    ids = post(house, "term", "[[sleep 700]]")
    house.start("gpu-1")
    running = "select count(*) from slices where state = 'running' and batch = any(%s)"
    house.until(lambda: house.ask(running, ids) >= 2, "a group of small jobs is in hand")
    house.terminate("gpu-1")
    house.wait("gpu-1", 30)
    assert house.ask(running, ids) == 0
    house.start("gpu-1")
    ready(house)
    ended(house, ids, "term")
    assert house.ask("select max(crashes) from slices where batch = any(%s)", ids) == 0


@pytest.mark.slow
def test_a_poison_job_among_others_costs_only_itself(house: House) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "poison [[die]]"}]}
    house.kill("gpu-1")
    poison = house.client.http.post("/jobs", json={"body": body}).json()["id"]
    ids = post(house, "beside")
    house.start("gpu-1")
    ended(house, ids, "beside")
    assert end(house, poison, 120)["error"]["code"] == "engine_crash"
