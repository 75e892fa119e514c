"""What was reserved returns, once, on every kind of end: `GET /v1/limits` shows nothing open, and what is really kept.

Each test is a tenant of its own, so that nothing of another one's is counted.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest
from e2e.live import CHAT, TLS, Client, chat
from faults.cases import further
from faults.house import House
from faults.load import check
from faults.one_of_each import arm, revive

from penstock.service.admin import limits

pytestmark = pytest.mark.timeout(300)

OPEN = (
    "calls_at_once",
    "sequences_at_once",
    "waits_at_once",
    "estimates_at_once",
    "upload_bytes_at_once",
    "open_batches",
    "queued_lines",
    "queued_tokens",
)


@pytest.fixture(scope="module")
def house(build: Callable[..., House]) -> House:
    """One process of each kind; leases are short, so that a death is seen soon."""
    return build(
        engine_arguments=["--latency-ms=20"],
        lease_seconds="3",
        beat_seconds="1",
        tick_seconds="1",
        worker_gone_seconds="4",
        hint_again_seconds="1",
        slice_lines="30",
    )


@pytest.fixture(autouse=True)
def unbroken(house: House) -> Iterator[None]:
    """Everybody lives before a test; after it the database and the blobs are as they must be."""
    revive(house)
    yield
    check(house)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """The tenant of this test alone."""
    return re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[-60:].strip("-")


@pytest.fixture
def tenant(name: str, house: House) -> Client:
    """Its clients."""
    return house.client_of(name)


def used(tenant: Client) -> dict[str, int]:
    """What /v1/limits says is used of each."""
    found = tenant.http.get("/limits").raise_for_status().json()["data"]
    return {one["name"]: one["used"] for one in found}


def owes_nothing(house: House, tenant: Client, files: int) -> None:
    """Nothing is open soon (a client that left is noticed within seconds), and files are counted to the byte."""

    def returned() -> bool:
        found = used(tenant)
        return not any(found[name] for name in OPEN)

    house.until(returned, "nothing is open", 20)
    found, kept = used(tenant), tenant.http.get("/files").json()["data"]
    assert (found["files"], found["stored_bytes"]) == (files, sum(one["bytes"] for one in kept))
    assert len(kept) == files


def reserves(house: House, tenant: Client, **least: int) -> None:
    """Wait until as much is counted as used."""
    house.until(lambda: all(used(tenant)[name] >= count for name, count in least.items()), f"{least} is counted", 30)


def lines(count: int, text: str = "say") -> list[dict[str, Any]]:
    return [chat(f"line-{n}", f"{text} {n}") for n in range(count)]


def job(tenant: Client, text: str = "hello", count: int = 1) -> str:
    requests = [{"body": chat("", f"{text} {n}")["body"]} for n in range(count)]
    made = tenant.http.post("/jobs", json={"model": "tiny", "requests": requests})
    return str(made.raise_for_status().json()["id"])


def job_ended(house: House, tenant: Client, id: str) -> str:
    """How a job ended."""

    def look() -> str | None:
        found = tenant.http.get(f"/jobs/{id}").raise_for_status().json()
        return found["status"] if found["status"] in ("completed", "failed", "cancelled", "expired") else None

    return str(house.until(look, "the job ends"))


def takes_calls(house: House, tenant: Client) -> None:
    """Wait until the API knows a worker: one that was started just now reports itself a little later."""
    ask = chat("", "hello")["body"]
    house.until(lambda: tenant.http.post("/chat/completions", json=ask).status_code == 200, "a call is answered", 30)


# Ends of batches and jobs.


def test_a_batch_that_is_completed(house: House, tenant: Client) -> None:
    batch = tenant.submit(lines(90, "say [[sleep 300]]"))
    reserves(house, tenant, open_batches=1, queued_lines=30, queued_tokens=30)
    assert tenant.ended(batch.id).status == "completed"
    owes_nothing(house, tenant, files=2)


def test_a_batch_that_is_refused_at_validation(house: House, tenant: Client) -> None:
    assert tenant.ended(tenant.submit([*lines(60), {"custom_id": "bad"}]).id).status == "failed"
    owes_nothing(house, tenant, files=1)


def test_a_batch_that_is_too_large_for_its_limit(house: House, name: str, tenant: Client) -> None:
    house.run(limits.change, name, {"queued_lines": 50})
    assert tenant.ended(tenant.submit(lines(60)).id).status == "failed"
    owes_nothing(house, tenant, files=1)
    assert tenant.ended(tenant.submit(lines(50)).id).status == "completed"
    owes_nothing(house, tenant, files=3)


@pytest.mark.parametrize("when", ["while it runs", *further("before anybody takes it", "twice")])
def test_a_batch_that_is_cancelled(house: House, tenant: Client, when: str) -> None:
    batch = tenant.submit(lines(90, "say [[sleep 20000]]"))
    if when != "before anybody takes it":
        reserves(house, tenant, queued_lines=90)
    for _ in range(2 if when == "twice" else 1):
        tenant.http.post(f"/batches/{batch.id}/cancel")
    assert tenant.ended(batch.id).status == "cancelled"
    owes_nothing(house, tenant, files=len(tenant.http.get("/files").json()["data"]))


@pytest.mark.slow
def test_a_batch_that_is_paused_and_cancelled_then(house: House, tenant: Client) -> None:
    batch = tenant.submit(lines(90, "say [[sleep 20000]]"))
    reserves(house, tenant, queued_lines=90)
    tenant.http.post(f"/batches/{batch.id}/pause").raise_for_status()
    assert used(tenant)["queued_lines"] == 90, "it is still owed"
    tenant.http.post(f"/batches/{batch.id}/cancel").raise_for_status()
    tenant.ended(batch.id)
    owes_nothing(house, tenant, files=len(tenant.http.get("/files").json()["data"]))


@pytest.mark.parametrize("kind", ["batches", *further("jobs")])
def test_what_expires(house: House, tenant: Client, kind: str) -> None:
    text = "say [[sleep 20000]]"
    id = tenant.submit(lines(60, text)).id if kind == "batches" else job(tenant, text, 3)
    reserves(house, tenant, queued_lines=60 if kind == "batches" else 3)
    house.sql("update batches set deadline = now() - interval '1 second' where id = %s", id)
    ended = tenant.ended(id).status if kind == "batches" else job_ended(house, tenant, id)
    assert ended == "expired"
    owes_nothing(house, tenant, files=len(tenant.http.get("/files").json()["data"]))


def test_jobs_that_are_completed_refused_cancelled_and_deleted(house: House, tenant: Client) -> None:
    done, refused = job(tenant, count=5), job(tenant, "no [[status 400]]")
    assert job_ended(house, tenant, done) == "completed"
    job_ended(house, tenant, refused)
    stopped = job(tenant, "stuck [[sleep 20000]]", 2)
    reserves(house, tenant, open_batches=1, queued_lines=2)
    tenant.http.post(f"/jobs/{stopped}/cancel").raise_for_status()
    assert job_ended(house, tenant, stopped) == "cancelled"
    owes_nothing(house, tenant, files=0)
    for id in (done, refused, stopped):
        tenant.http.delete(f"/jobs/{id}").raise_for_status()
        assert tenant.http.delete(f"/jobs/{id}").status_code == 404
    owes_nothing(house, tenant, files=0)


def test_a_batch_that_is_retried_and_deleted_with_its_files(house: House, tenant: Client) -> None:
    parent = tenant.ended(tenant.submit([*lines(40), *[chat("bad", "no [[needs 100]]")]]).id)
    asked = {"set": {"max_tokens": 200}}
    child = tenant.http.post(f"/batches/{parent.id}/retry", json=asked).raise_for_status().json()["id"]
    assert tenant.ended(child).status == "completed"
    kept = tenant.http.get("/files").json()["data"]
    owes_nothing(house, tenant, files=len(kept))
    for id in (child, parent.id):
        tenant.http.delete(f"/batches/{id}").raise_for_status()
    left = tenant.http.get("/files").json()["data"]
    owes_nothing(house, tenant, files=len(left))
    for one in left:
        assert tenant.http.delete(f"/files/{one['id']}").status_code == 200
        assert tenant.http.delete(f"/files/{one['id']}").status_code == 404
    owes_nothing(house, tenant, files=0)


# Clients that leave in the middle.


@contextmanager
def begun(tenant: Client, request: str, body: bytes = b"", *headers: str) -> Iterator[socket.socket]:
    """A request whose head and some of its body are sent; leaving it closes the connection."""
    base = tenant.http.base_url
    with socket.create_connection((base.host, base.port or 80), timeout=30) as one:
        head = [f"{request} HTTP/1.1", "host: x", f"authorization: {tenant.http.headers['authorization']}", *headers]
        one.sendall("\r\n".join([*head, "", ""]).encode() + body)
        yield one


def part(size: int) -> tuple[bytes, str, str]:
    """An upload that says it is larger than what comes of it."""
    start = b'--B\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n' + bytes(size)
    return start, "content-type: multipart/form-data; boundary=B", f"content-length: {4 * size}"


def json_of(value: dict[str, Any]) -> tuple[bytes, str, str]:
    body = json.dumps(value).encode()
    return body, "content-type: application/json", f"content-length: {len(body)}"


def test_a_client_that_leaves_an_upload(house: House, tenant: Client) -> None:
    with begun(tenant, "POST /v1/files", *part(500_000)):
        reserves(house, tenant, upload_bytes_at_once=400_000)
    owes_nothing(house, tenant, files=0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_a_waiting_call(house: House, tenant: Client, stream: bool) -> None:
    takes_calls(house, tenant)
    asked = chat("", "for long [[sleep 60000]]")["body"] | {"stream": stream, "n": 3}
    with begun(tenant, f"POST {CHAT}", *json_of(asked)):
        reserves(house, tenant, calls_at_once=1, sequences_at_once=3)
    owes_nothing(house, tenant, files=0)
    metrics = f"{house.url}/metrics"
    none = "penstock_calls_in_flight 0.0"
    house.until(lambda: none in httpx.get(metrics, trust_env=False, verify=TLS).text, "no call is in flight", 10)


@pytest.mark.slow
def test_a_client_that_leaves_long_polls(house: House, tenant: Client) -> None:
    id = job(tenant, "stuck [[sleep 20000]]")
    with begun(tenant, f"GET /v1/jobs/{id}?wait=60"), begun(tenant, f"GET /v1/jobs/{id}?wait=60"):
        reserves(house, tenant, waits_at_once=2)
    house.until(lambda: used(tenant)["waits_at_once"] == 0, "nobody waits", 10)
    tenant.http.post(f"/jobs/{id}/cancel")
    job_ended(house, tenant, id)
    owes_nothing(house, tenant, files=0)


def test_a_client_that_leaves_an_estimate(house: House, tenant: Client) -> None:
    whole, kind, _ = json_of({"endpoint": CHAT, "model": "tiny", "requests": [{"body": chat("", "a")["body"]}] * 50})
    with begun(tenant, "POST /v1/batches/estimate", whole[:-10], kind, f"content-length: {len(whole)}"):
        reserves(house, tenant, estimates_at_once=1)
    owes_nothing(house, tenant, files=0)
    with begun(tenant, "POST /v1/batches/estimate", whole, kind, f"content-length: {len(whole)}"):
        pass
    owes_nothing(house, tenant, files=0)


# `kill -9` in the middle.


def test_an_api_that_is_killed_with_an_upload_a_call_and_a_poll_under_way(house: House, tenant: Client) -> None:
    id = job(tenant, "stuck [[sleep 3000]]")
    takes_calls(house, tenant)
    asked = chat("", "for long [[sleep 60000]]")["body"]
    with (
        begun(tenant, "POST /v1/files", *part(500_000)),
        begun(tenant, f"POST {CHAT}", *json_of(asked)),
        begun(tenant, f"GET /v1/jobs/{id}?wait=60"),
    ):
        reserves(house, tenant, upload_bytes_at_once=400_000, calls_at_once=1, waits_at_once=1, open_batches=1)
        house.kill("api-1")
    revive(house)
    assert job_ended(house, tenant, id) == "completed"
    owes_nothing(house, tenant, files=0)
    takes_calls(house, tenant)
    owes_nothing(house, tenant, files=0)


def test_an_api_that_is_killed_once_a_create_is_committed(house: House, tenant: Client) -> None:
    arm(house, "api-1", "hint.committed=kill")
    with suppress(httpx.TransportError):
        job(tenant)
    assert house.wait("api-1", 30) == -signal.SIGKILL
    revive(house)
    owes_nothing(house, tenant, files=0)
    assert len(tenant.http.get("/jobs").json()["data"]) == 1


@pytest.mark.parametrize("point", ["segment.written=kill", *further("slice.claimed=kill")])
def test_a_worker_that_is_killed(house: House, tenant: Client, point: str) -> None:
    arm(house, "gpu-1", point)
    batch, small = tenant.submit(lines(60)), job(tenant, count=3)
    assert house.wait("gpu-1", 60) == -signal.SIGKILL
    assert used(tenant)["open_batches"] >= 1
    revive(house)
    assert tenant.ended(batch.id).status == "completed"
    assert job_ended(house, tenant, small) == "completed"
    owes_nothing(house, tenant, files=2)


def test_a_worker_that_is_killed_with_waiting_calls(house: House, tenant: Client) -> None:
    takes_calls(house, tenant)
    answers: list[tuple[int, str]] = []
    killed = threading.Event()

    def call() -> None:
        body = chat("", "for long [[sleep 60000]]")["body"]
        try:
            answer = tenant.http.post("/chat/completions", json=body)
            while "no_worker" in answer.text and not killed.wait(0.2):  # on a busy machine it is late to say it is here
                answer = tenant.http.post("/chat/completions", json=body)
            answers.append((answer.status_code, answer.text))
        except httpx.HTTPError as error:
            answers.append((0, repr(error)))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for one in callers:
        one.start()
    house.until(lambda: answers or used(tenant)["calls_at_once"] == 4, "four are counted", 30)
    assert answers == []
    killed.set()
    house.kill("gpu-1")
    for one in callers:
        one.join(60)
    assert len(answers) == 4
    owes_nothing(house, tenant, files=0)
    assert all(status >= 500 for status, _ in answers), answers


@pytest.mark.slow
@pytest.mark.parametrize("point", ["assemble.written=kill", "validate.planned=kill"])
def test_an_io_worker_that_is_killed(house: House, tenant: Client, point: str) -> None:
    arm(house, "io-1", point)
    batch = tenant.submit(lines(60))
    assert house.wait("io-1", 60) == -signal.SIGKILL
    revive(house)
    assert tenant.ended(batch.id).status == "completed"
    owes_nothing(house, tenant, files=2)


@pytest.mark.slow
def test_a_keeper_that_is_killed_while_it_frees_what_a_dead_worker_held(house: House, tenant: Client) -> None:
    arm(house, "keeper-1", "keeper.reaping=kill")
    arm(house, "gpu-1", "slice.asking=kill")
    batch = tenant.submit(lines(60))
    assert house.wait("gpu-1", 60) == -signal.SIGKILL
    assert house.wait("keeper-1", 60) == -signal.SIGKILL
    reserves(house, tenant, open_batches=1, queued_lines=60)
    tenant.http.post(f"/batches/{batch.id}/cancel").raise_for_status()
    revive(house)
    assert tenant.ended(batch.id).status == "cancelled"
    owes_nothing(house, tenant, files=len(tenant.http.get("/files").json()["data"]))
