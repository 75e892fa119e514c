"""On servers that an operator brings along: Postgres behind pgbouncer in transaction mode, Valkey, and blobs in S3."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from e2e import live
from e2e.external import S3, Pooler, pooler, s3
from e2e.live import Client, chat, jsonl, said, until
from e2e.walk import FILES, Machine, commands
from faults.house import House
from faults.servers import PostgresServer, ValkeyServer
from openai.types import Batch
from programs import program

from penstock.stack.ports import free_port

pytestmark = pytest.mark.timeout(300)

POOLED = 6
LIMIT = "show idle_in_transaction_session_timeout"


@dataclass(frozen=True)
class Site:
    """A platform on two machines, and the servers that were there before it."""

    url: str
    ingress_url: str
    client: Client
    one: Machine
    postgres: PostgresServer
    pooler: Pooler
    redis_url: str
    s3: S3
    said: str
    """What the page's commands for a first batch said."""


@pytest.fixture(scope="module")
def site(short_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The walk of docs/many-machines.md; every process reaches Postgres through the pooler, `penstock migrate` too."""
    program("curl", "curl")
    folder = short_dir / "external"
    folder.mkdir()
    with ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer(folder))
        between = stack.enter_context(pooler(postgres.sockets, folder / "pgbouncer", connections=POOLED))
        valkey = stack.enter_context(ValkeyServer(folder))
        store = stack.enter_context(s3(folder))
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute("create database penstock")
        files = environment_files(between, valkey.url, store)

        def machine(name: str, *told: str) -> Machine:
            # What the page leaves to the defaults: folders, and an S3 that is not Amazon's. Leases are short.
            own = {f"PENSTOCK_{kind}_DIR": f"{folder}/{name}" for kind in ("RUNTIME", "LOG", "SCRATCH")}
            own |= {"AWS_ENDPOINT": store.endpoint, "AWS_ALLOW_HTTP": "true"}
            own |= {"PENSTOCK_LEASE_SECONDS": "5", "PENSTOCK_BEAT_SECONDS": "1", "PENSTOCK_SLICE_LINES": "512"}
            etc = tmp_path_factory.mktemp("machines") / name
            return stack.enter_context(Machine(etc, {file: files[file] for file in told}, own))

        one = machine("one", "penstock.env", "ingress.env", "webhooks.env", "api.env")
        two = machine("two", "penstock.env", "ingress.env", "worker-chat.env")
        key = re.findall(r"^sk-\S+$", one.run(commands("The machine `one`")), re.MULTILINE)[0]
        two.run(commands("Each machine with a GPU"))
        url = f"http://127.0.0.1:{files['api.env']['API_ARGS'].split()[-1]}"
        away, batch = machine("laptop"), commands("A first batch")
        said = away.run(f"cd {away.folder}\n{batch}", {"http://one.internal:8000": url, "sk-…": key})
        client = stack.enter_context(live.client(url, key))
        ingress_url = files["worker-chat.env"]["PENSTOCK_INGRESS_URL"]
        yield Site(url, ingress_url, client, one, postgres, between, valkey.url, store, said)


def environment_files(between: Pooler, redis_url: str, store: S3) -> dict[str, dict[str, str]]:
    """The page's files with values of this test."""
    port, ingress_port = free_port(), free_port()
    credentials = ("AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    return {
        "penstock.env": {
            "PENSTOCK_DATABASE_URL": between.url("penstock"),
            "PENSTOCK_REDIS_URL": redis_url,
            "PENSTOCK_BLOB_URL": store.url,
            **{name: store.environment[name] for name in credentials},
        },
        "ingress.env": {"PENSTOCK_INGRESS_TOKEN": "of-all-apis-and-workers-of-this-test"},
        "webhooks.env": {"PENSTOCK_SECRET_KEYS": os.environ["PENSTOCK_SECRET_KEYS"]},
        "api.env": {"API_ARGS": f"--host 127.0.0.1 --port {port}"},
        "worker-chat.env": {
            "WORKER_ARGS": "--model chat=echo --engine echo",
            "PENSTOCK_INGRESS_HOST": "127.0.0.1",
            "PENSTOCK_INGRESS_PORT": str(ingress_port),
            "PENSTOCK_INGRESS_URL": f"http://127.0.0.1:{ingress_port}",
        },
    }


def test_the_page_from_one_machine_to_many_leads_to_an_answer(site: Site) -> None:
    *health, answer = site.said.splitlines()
    assert '{"status":"ok","missing":[]}' in health[-1]
    assert said(json.loads(answer)) == "What is a penstock?"
    assert set(FILES) == {"penstock.env", "ingress.env", "webhooks.env", "api.env", "worker-chat.env"}
    assert httpx.get(f"{site.ingress_url}/metrics", trust_env=False).status_code == 401
    assert set(site.one.logs) == {"api", "keeper", "io"}


def test_batches_jobs_calls_cancels_and_retries_work_and_their_files_are_in_the_bucket(site: Site) -> None:
    client, refused = site.client, set(range(7, 1_200, 100))
    lines = [line(f"{n}", f"question {n}" + " [[needs 100]]" * (n in refused), max_tokens=16) for n in range(1_200)]
    data = jsonl(lines)
    batch = client.ended(client.submit(data).id)
    assert batch.status == "completed"
    kept = site.s3.objects()
    downloads = {id: client.sdk.files.content(id or "").content for id in (batch.output_file_id, batch.error_file_id)}
    assert data in kept
    assert [one for one in downloads.values() if one not in kept] == [], "what is downloaded is what is in the bucket"
    part = client.http.get(f"/files/{batch.output_file_id}/content", headers={"range": "bytes=100-299"})
    assert (part.status_code, part.content) == (206, downloads[batch.output_file_id][100:300])
    output, errors = client.file(batch.output_file_id), client.file(batch.error_file_id)
    assert [one["custom_id"] for one in output] == [f"{n}" for n in range(1_200) if n not in refused]
    assert [said(one) for one in output] == [f"question {n}" for n in range(1_200) if n not in refused]
    assert [one["custom_id"] for one in errors] == [f"{n}" for n in sorted(refused)]

    made = client.http.post(f"/batches/{batch.id}/retry", json={"set": {"max_tokens": 512}}).raise_for_status().json()
    merged = client.file(client.ended(made["id"]).model_dump()["merged_output_file_id"])
    assert [one["custom_id"] for one in merged] == [f"{n}" for n in range(1_200)]
    assert all(said(one).startswith(f"question {n}") for n, one in enumerate(merged))

    job = client.http.post("/jobs", json={"body": line("", "a job")["body"]}).raise_for_status().json()["id"]
    done = client.http.get(f"/jobs/{job}", params={"wait": 30}).json()
    assert [said(one) for one in done["results"]] == ["a job"]

    body = {"model": "chat", "messages": [{"role": "user", "content": "a call that waits"}]}
    assert client.sdk.chat.completions.create(**body).choices[0].message.content == "a call that waits"  # type: ignore[call-overload]
    stream = client.sdk.chat.completions.create(**body, stream=True)  # type: ignore[call-overload]
    assert "".join(piece.choices[0].delta.content or "" for piece in stream if piece.choices) == "a call that waits"

    id = client.submit([line(f"{n}", "long [[sleep 60000]]" if n % 2 else "short") for n in range(40)]).id
    client.watched(id, lambda seen: seen.request_counts and seen.request_counts.completed == 20, "half is answered")
    client.sdk.batches.cancel(id)
    cancelled = client.ended(id)
    assert (cancelled.status, len(client.file(cancelled.output_file_id))) == ("cancelled", 20)
    assert {one["error"]["code"] for one in client.file(cancelled.error_file_id)} == {"batch_cancelled"}


def test_every_connection_of_the_pooler_ends_transactions_that_stand_still(site: Site) -> None:
    """That of `penstock migrate` too, which told the database's new connections only."""
    with ExitStack() as stack:
        said = []
        for _ in range(POOLED):
            connection = stack.enter_context(psycopg.connect(site.pooler.url("penstock")))
            said += [stack.enter_context(connection.cursor()).execute(LIMIT).fetchone()]
        assert said == [("10s",)] * POOLED


def test_postgres_is_restarted_behind_the_pooler_and_the_batch_goes_on(site: Site) -> None:
    id = site.client.submit([line(f"{n}", f"{n} [[sleep 300]]") for n in range(1_000)]).id
    midway(site, id)
    site.postgres.end()
    site.postgres.start()
    complete(site, id, 1_000)


def test_a_frozen_object_store_is_named_before_its_next_trial_and_the_batch_goes_on_when_it_is_back(site: Site) -> None:
    id = site.client.submit([line(f"{n}", f"{n} [[sleep 300]]") for n in range(1_000)]).id
    midway(site, id)
    assert ready(site.url) == (200, [])
    with site.s3.frozen():
        until(lambda: ready(site.url) == (503, ["blobs"]), "it says that the blobs are away", 14)
        assert httpx.get(f"{site.url}/health/live", trust_env=False).status_code == 200
    until(lambda: ready(site.url) == (200, []), "it says that all is well", 10)
    complete(site, id, 1_000)
    log = site.one.logs["api"].read_text()
    assert log.count("blob_store_away") == log.count("blob_store_back") == 1
    assert "it says nothing for 2 s" in log


def test_a_bucket_that_is_not_there_is_named_by_health_and_once_in_the_log(site: Site, tmp_path: Path) -> None:
    told = {"environment": site.s3.environment, "blob_url": "s3://nobody-made-it", "wait": False}
    with House(site.pooler.url("penstock"), site.redis_url, tmp_path, keepers=0, ios=0, gpus=0, **told) as lone:
        until(lambda: ready(lone.url) == (503, ["blobs"]), lambda: lone.tell(), 60)
        upload = lone.client.http.post("/files", data={"purpose": "batch"}, files={"file": b"{}"})
        assert (upload.status_code, ready(lone.url)) == (503, (503, ["blobs"]))

        def tried() -> bool:
            ready(lone.url)
            return site.s3.child.log.read_text().count("PUT /nobody-made-it/ready/") >= 3

        until(tried, "it has tried three times", 60)
        log = lone.residents["api-1"].log.read_text()
        assert log.count("blob_store_away") == 1
        assert "NoSuchBucket" in log


def line(custom_id: str, text: str, **body: Any) -> dict[str, Any]:
    """One chat request of the page's model."""
    return chat(custom_id, text, "chat", **body)


def ready(url: str) -> tuple[int, list[str]]:
    """What `/health/ready` says, and what is missing; no status if nobody answers."""
    try:
        told = httpx.get(f"{url}/health/ready", timeout=10, trust_env=False)
    except httpx.ConnectError:
        return 0, []
    return told.status_code, told.json()["missing"]


def midway(site: Site, id: str) -> None:
    """Wait until some lines are recorded, and not all."""

    def some(batch: Batch) -> bool:
        return bool(batch.request_counts and 0 < batch.request_counts.completed < batch.request_counts.total * 0.9)

    site.client.watched(id, some, "some lines are recorded")


def complete(site: Site, id: str, lines: int) -> None:
    """Each line was answered once, in its place."""
    batch = site.client.ended(id, 90)
    assert (batch.status, batch.error_file_id) == ("completed", None)
    output = site.client.file(batch.output_file_id)
    assert [one["custom_id"] for one in output] == [f"{n}" for n in range(lines)]
    assert [said(one) for one in output] == [f"{n} [[sleep 300]]" for n in range(lines)]
