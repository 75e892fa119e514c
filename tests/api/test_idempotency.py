"""Idempotency: the same create under the same key is done once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from api.live import batch_of, chat, error, upload

from penstock.settings import Settings


def post_batch(client: httpx.Client, key: str, body: dict[str, Any]) -> httpx.Response:
    return client.post("/v1/batches", json=body, headers={"idempotency-key": key})


def test_the_same_create_twice_is_one_batch(client: httpx.Client) -> None:
    body = batch_of(upload(client)["id"])
    first = post_batch(client, "k", body).json()
    client.post(f"/v1/batches/{first['id']}/cancel")
    again = post_batch(client, "k", body).json()
    assert again["id"] == first["id"]
    assert again["status"] == "cancelled"
    assert post_batch(client, "other", body).json()["id"] != first["id"]


def test_another_request_under_the_same_key_is_409(client: httpx.Client, model: str) -> None:
    body = batch_of(upload(client)["id"])
    post_batch(client, "k", body)
    refused = post_batch(client, "k", body | {"lane": "flex"})
    assert error(refused, 409)["code"] == "idempotency_key_reused"
    assert refused.headers["x-should-retry"] == "false"
    job = client.post("/v1/jobs", json={"model": model, "body": chat()}, headers={"idempotency-key": "k"})
    assert error(job, 409)["code"] == "idempotency_key_reused"


def test_the_key_of_one_tenant_means_nothing_to_another(client: httpx.Client, stranger: httpx.Client) -> None:
    mine = post_batch(client, "k", batch_of(upload(client)["id"])).json()
    theirs = post_batch(stranger, "k", batch_of(upload(stranger)["id"])).json()
    assert mine["id"] != theirs["id"]


def test_a_retry_finds_its_batch_even_if_the_file_is_gone(client: httpx.Client) -> None:
    file = upload(client)["id"]
    first = post_batch(client, "k", batch_of(file)).json()
    client.post(f"/v1/batches/{first['id']}/cancel")
    assert client.delete(f"/v1/files/{file}").status_code == 200
    assert post_batch(client, "k", batch_of(file)).json()["id"] == first["id"]


@pytest.mark.parametrize("requests", [1, 150])
def test_the_same_job_at_once_from_many_sides_is_one_job(client: httpx.Client, model: str, requests: int) -> None:
    body = {"model": model, "requests": [{"body": chat()} for _ in range(requests)]}

    def post(_: int) -> httpx.Response:
        return client.post("/v1/jobs", json=body, headers={"idempotency-key": "k"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(client.get("/v1/jobs").json()["data"]) == 1
    assert len(client.get("/v1/files").json()["data"]) == (0 if requests == 1 else 1)


def test_the_same_batch_at_once_from_many_sides_is_one_batch(client: httpx.Client) -> None:
    body = batch_of(upload(client)["id"])
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post_batch(client, "k", body), range(16)))
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(client.get("/v1/batches").json()["data"]) == 1


def test_the_same_upload_twice_is_one_file_with_one_blob(client: httpx.Client, settings: Settings) -> None:
    def post(data: bytes) -> httpx.Response:
        headers = {"idempotency-key": "k"}
        return client.post("/v1/files", files={"file": ("f", data)}, data={"purpose": "batch"}, headers=headers)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(post, [b"{}"] * 8))
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert error(post(b"[]"), 409)["code"] == "idempotency_key_reused"
    root = Path(settings.blob_url.removeprefix("file://"))
    assert len([path for path in root.rglob("*") if path.is_file()]) == 1
