"""What is secret is where it belongs and nowhere else: canaries are planted, work is done, and everything searched."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from e2e.live import Platform, chat, until, up
from stack.canaries import Places, found
from worker.receiver import Receiver

pytestmark = pytest.mark.timeout(240)

SECRET_FILES = ("key", "ingress-token", "metrics-token", "secret-keys", "flower-password")

IN_ROWS = {"table slices.inline", "table segments.data", "file postgres"}
"""Small jobs are rows, with their answers (the engine says again what it is asked)."""

PLACES: Places = {
    # What tenants send: in the blobs, or in rows where a job is small; a cached answer also where it is kept.
    "batch": {"file blobs"},
    "job": IN_ROWS,
    "file job": {"file blobs"},
    "call": set(),
    "cached call": {"valkey"},
    "bad json": {"file blobs"},  # a file that was uploaded; what is wrong with it is not repeated
    "unknown field": set(),
    "engine error": {"file blobs"},  # of a batch's line
    "wrong key": set(),
    "path": set(),
    "query": set(),
    "receiver": {"table webhook_endpoints.url", "file postgres"},
    # What signs: told once to its tenant, and sealed in the database.
    "webhook secret /hook": set(),
    "webhook secret /broken": set(),
    "rotated webhook secret": set(),
    "webhook secret of job": set(),
    "webhook secret of file job": set(),
    # The operator's: each in its file, and with who needs it. (A gpu worker's environment can't be read, since Celery
    # writes its command line over it: `tests/stack/test_child_environment.py` says what is in it.)
    "key": {"file key", "environ of api", "output of up"},  # shown once, when it is made
    "ingress-token": {"file ingress-token", "environ of api"},
    "metrics-token": {"file metrics-token", "environ of api"},
    "secret-keys": {"file secret-keys"},
    "flower-password": {"file flower-password", "environ of flower"},
    "valkey password": {f"environ of {name}" for name in ("api", "keeper", "flower")},
}


def word(of: str) -> str:
    """A word that nobody else says."""
    return f"canary-{of}-{secrets.token_hex(12)}"


@pytest.fixture(scope="module")
def platform(short_dir: Path) -> Iterator[Platform]:
    """A platform of its own: others have said other things."""
    with up(
        short_dir / "canaries",
        "--engine=echo",
        outbound_allow="127.0.0.0/8",
        webhook_waits_seconds="[0, 0.2]",
        log_level="debug",
        cache_timeout_seconds="10",
    ) as one:
        yield one


@pytest.fixture(scope="module")
def planted(platform: Platform) -> dict[str, str]:
    """Canaries by name, after work in which each of them was used."""
    names = [name for name in PLACES if name not in SECRET_FILES and "secret" not in name and "password" not in name]
    words = {name: word(name.replace(" ", "-")) for name in names}
    with Receiver() as receiver:
        _work(platform, receiver, words)
    for name in SECRET_FILES:
        words[name] = (platform.data / name).read_text().strip()
    words["valkey password"] = platform.child("api").environ()["PENSTOCK_REDIS_URL"].split(":")[2].split("@")[0]
    return words


def _work(platform: Platform, receiver: Receiver, words: dict[str, str]) -> None:
    receiver.answers("/broken", 500)
    for path in ("/hook", "/broken"):
        url = receiver.url(path) + "?" + words["receiver"]
        made = ok(platform.http.post("/webhook_endpoints", json={"url": url}))
        words[f"webhook secret {path}"] = made["signing_secret"]
    rotated = ok(platform.http.post(f"/webhook_endpoints/{made['id']}/rotate"))
    words["rotated webhook secret"] = rotated["signing_secret"]
    # A batch with a line that the engine refuses, a job, a job that is too long for rows, and waiting calls.
    lines = [chat("good", words["batch"]), chat("bad", words["engine error"] + " [[status 400]]")]
    assert platform.ended(platform.submit(lines).id).status == "completed"
    for name, filler in (("job", ""), ("file job", " filler" * 60_000)):
        body = {"model": "tiny", "body": {"messages": [{"role": "user", "content": words[name] + filler}]}}
        own = {"url": receiver.url("/own")}
        job = ok(platform.http.post("/jobs", params={"wait": 30}, json=body | {"webhook": own}))
        words[f"webhook secret of {name}"] = job["webhook"]["secret"]
        until(lambda id=job["id"]: ok(platform.http.get(f"/jobs/{id}"))["status"] == "completed", f"{name} is done")
    for stream in (False, True):
        for told in (words["call"], words["engine error"] + " [[status 500]]", words["engine error"] + " [[break]]"):
            asked = {"model": "tiny", "stream": stream, "messages": [{"role": "user", "content": told}]}
            platform.http.post("/chat/completions", json=asked)
    asked = {"model": "tiny", "messages": [{"role": "user", "content": words["cached call"]}], "temperature": 0}
    hit = {"x-penstock-cache": "on"}
    until(
        lambda: platform.http.post("/chat/completions", json=asked, headers=hit).headers["x-penstock-cache"] == "hit",
        "the answer is kept",
    )
    # Refused calls.
    for url in ("/chat/completions", "/jobs", "/batches", "/webhook_endpoints"):
        platform.http.post(url, content=b'{"model": "' + words["bad json"].encode())
        platform.http.post(url, json={"model": "tiny", words["unknown field"]: words["unknown field"], "body": 1})
    platform.http.post("/files", files={"file": ("x.jsonl", words["bad json"].encode())}, data={"purpose": "batch"})
    refused = platform.submit(words["bad json"].encode() + b"\n")
    assert platform.ended(refused.id).status == "failed"
    platform.http.get(f"/files/{words['path']}")
    platform.http.get(f"/{words['path']}")
    platform.http.get("/files", params={"after": words["query"], words["query"]: "x"})
    for url in (f"{platform.url}/v1/files", f"{platform.url}/metrics", platform.flower_url):
        assert httpx.get(url, headers={"authorization": f"Bearer {words['wrong key']}"}).status_code == 401
    metrics = (platform.data / "metrics-token").read_text().strip()
    assert httpx.get(f"{platform.url}/metrics", headers={"authorization": f"Bearer {metrics}"}).status_code == 200
    password = (platform.data / "flower-password").read_text().strip()
    assert httpx.get(f"{platform.flower_url}/workers", auth=("penstock", password), timeout=20).status_code == 200
    receiver.wait("/hook", 4)
    receiver.wait("/broken", 8)
    receiver.wait("/own", 2)


def ok(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_each_canary_is_where_it_belongs_and_nowhere_else(platform: Platform, planted: dict[str, str]) -> None:
    places = found(platform, planted)
    assert {name: places[name] for name in planted} == PLACES
