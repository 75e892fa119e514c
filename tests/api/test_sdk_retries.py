"""Retries that an SDK marks as its own: they get what an unanswered create made, once each, and nothing else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from api import live
from api.live import CHAT, batch_of, chat, http, upload
from e2e.live import until
from sqlalchemy import text

from penstock.service.admin import keys, sweep
from penstock.service.core.transaction import Database
from penstock.settings import Settings

FIRST, RETRY = {"x-stainless-retry-count": "0"}, {"x-stainless-retry-count": "1"}


@contextmanager
def creates_held(db: Database) -> Iterator[Callable[[], None]]:
    """Whoever creates something waits in its transaction until this is called."""
    with db.engine.connect() as conn:
        conn.execute(text("lock table batches, files, uploads in exclusive mode"))
        yield conn.rollback


def unheard(db: Database) -> list[Any]:
    return db.run(lambda tx: tx.conn.execute(text("select * from unheard_creates order by asked_at")).all())


def waiting(db: Database) -> bool:
    """Somebody waits for a lock."""
    query = "select exists (select from pg_locks where not granted)"
    return bool(db.run(lambda tx: tx.conn.execute(text(query)).scalar()))


def leave(url: str, db: Database, request: httpx.Request) -> str:
    """A first create whose client leaves while it is at work: what is made, and answered to nobody."""
    raw, before = request.read(), len(unheard(db))
    host, port = url.removeprefix("http://").split(":")
    head = [f"POST {request.url.path} HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers.items())]
    with creates_held(db) as go_on:
        with socket.create_connection((host, int(port))) as client:
            client.sendall("\r\n".join([*head, "x-stainless-retry-count: 0", "", ""]).encode() + raw)
            until(lambda: waiting(db), "it waits")
        time.sleep(0.2)  # until the server sees it leave: nothing else tells
        go_on()
    until(lambda: len(unheard(db)) == before + 1 and unheard(db)[-1].is_cut, "it is made")
    return str(unheard(db)[-1].made)


def lost(url: str, client: httpx.Client, db: Database, body: dict[str, Any], path: str = "/v1/batches") -> str:
    """The same of a JSON body."""
    return leave(url, db, client.build_request("POST", path, json=body))


def post(client: httpx.Client, body: dict[str, Any], headers: dict[str, str], path: str = "/v1/batches") -> str:
    answer = client.post(path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def batches(client: httpx.Client) -> list[str]:
    return [one["id"] for one in client.get("/v1/batches").json()["data"]]


def test_the_sdk_repeats_a_slow_create_and_it_is_one_batch(url: str, client: httpx.Client, db: Database) -> None:
    body = batch_of(upload(client)["id"])
    sdk = live.sdk(url, max_retries=3, timeout=1)
    with sdk, creates_held(db) as go_on:
        timer = threading.Timer(2.5, go_on)
        timer.start()
        made = sdk.batches.create(**body)
        timer.join()
    assert batches(client) == [made.id]
    until(lambda: not unheard(db), "it was heard")


def test_each_unanswered_create_is_matched_once_the_oldest_first(url: str, client: httpx.Client, db: Database) -> None:
    body = batch_of(upload(client)["id"])
    made = [lost(url, client, db, body) for _ in range(2)]
    assert [post(client, body, RETRY), post(client, body, RETRY)] == made
    assert post(client, body, RETRY) not in made, "both were heard"
    assert len(batches(client)) == 3


def test_a_retry_whose_client_leaves_too_is_matched_by_the_next(url: str, client: httpx.Client, db: Database) -> None:
    body = batch_of(upload(client)["id"])
    made = lost(url, client, db, body)
    with db.engine.connect() as conn:
        conn.execute(text("select * from unheard_creates for update"))
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/batches", json=body, headers=RETRY, timeout=1)
        conn.rollback()
    until(lambda: unheard(db)[0].is_cut, "the second one left, too")
    assert post(client, body, RETRY | {"x-stainless-retry-count": "2"}) == made
    assert batches(client) == [made]


def test_what_an_api_made_that_died_before_it_could_answer_is_found(client: httpx.Client, db: Database) -> None:
    body = batch_of(upload(client)["id"])
    with db.engine.connect() as conn:
        conn.execute(text("lock table unheard_creates in share row exclusive mode"))
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/batches", json=body, headers=FIRST, timeout=1)
        conn.rollback()
    until(lambda: [row for row in unheard(db) if row.is_cut], "it is made")
    # Nobody could say that it was cut; and nobody said that it was heard.
    db.run(lambda tx: tx.conn.execute(text("update unheard_creates set is_cut = false, asked_at = clock_timestamp()")))
    began = time.monotonic()
    assert post(client, body, RETRY) == batches(client)[0]
    assert time.monotonic() - began > 0.5, "its answer might have been on its way"
    assert len(batches(client)) == 1


def test_an_answered_create_is_no_retrys(client: httpx.Client, db: Database) -> None:
    body = batch_of(upload(client)["id"])
    made = [post(client, body, headers) for headers in (FIRST, RETRY, FIRST, RETRY)]
    assert len(set(made)) == 4
    until(lambda: not unheard(db), "all were heard")


def test_only_the_same_body_of_the_same_key_within_ten_minutes_counts_and_only_for_marked_retries(
    url: str, client: httpx.Client, db: Database, settings: Settings
) -> None:
    body = batch_of(upload(client)["id"])
    made = lost(url, client, db, body)
    _, other_key = db.run(keys.create, "default", "other")
    others = [
        post(client, body, {}),
        post(client, body, FIRST),
        post(client, body, {"x-stainless-retry-count": "one"}),
        post(client, body, RETRY | {"idempotency-key": "k"}),
        post(client, body | {"metadata": {"a": "b"}}, RETRY),
    ]
    with http(url, other_key) as other:
        others.append(post(other, body, RETRY))
    until(lambda: len(unheard(db)) == 1, "the others were heard")
    old = text("update unheard_creates set asked_at = asked_at - interval '601 seconds'")
    db.run(lambda tx: tx.conn.execute(old))
    others.append(post(client, body, RETRY))
    assert made not in others
    assert len(set(others)) == 7
    until(lambda: len(unheard(db)) == 1, "that one, too")
    assert db.run(sweep.unheard_creates, settings) == 1
    assert unheard(db) == []


def test_what_is_deleted_meanwhile_is_made_anew(url: str, client: httpx.Client, db: Database) -> None:
    body = batch_of(upload(client)["id"])
    made = lost(url, client, db, body)
    client.post(f"/v1/batches/{made}/cancel")
    assert client.delete(f"/v1/batches/{made}").status_code == 200
    assert post(client, body, RETRY) != made


@pytest.mark.parametrize("requests", [1, 150])
def test_a_jobs_retry_finds_it(url: str, client: httpx.Client, db: Database, model: str, requests: int) -> None:
    body = {"model": model, "endpoint": CHAT, "requests": [{"body": chat()} for _ in range(requests)]}
    made = lost(url, client, db, body, "/v1/jobs")
    assert post(client, body, RETRY, "/v1/jobs") == made
    assert post(client, body, RETRY, "/v1/jobs") != made
    assert len(client.get("/v1/jobs").json()["data"]) == 2


def test_an_uploads_retry_finds_it(url: str, client: httpx.Client, db: Database) -> None:
    new = {"filename": "in.jsonl", "purpose": "batch", "bytes": 3, "mime_type": "x"}
    made = lost(url, client, db, new, "/v1/uploads")
    assert post(client, new, RETRY, "/v1/uploads") == made
    assert post(client, new, RETRY, "/v1/uploads") != made


def test_a_files_retry_finds_it_and_leaves_no_second_blob(
    url: str, client: httpx.Client, db: Database, settings: Settings
) -> None:
    def request(data: bytes, headers: dict[str, str]) -> httpx.Request:
        return client.build_request(
            "POST", "/v1/files", files={"file": ("f", data)}, data={"purpose": "batch"}, headers=headers
        )

    made = leave(url, db, request(b"{}", {}))
    assert client.send(request(b"[]", RETRY)).json()["id"] != made
    assert client.send(request(b"{}", RETRY)).json()["id"] == made
    root = Path(settings.blob_url.removeprefix("file://"))
    assert len([path for path in root.rglob("*") if path.is_file()]) == 2
