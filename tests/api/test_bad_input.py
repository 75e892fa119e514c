"""Hostile input: a clear error in OpenAI's envelope, never a 500."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest
from api.live import CHAT, KEY, batch_of, chat, create, error, upload

from penstock.settings import Settings

POSTS = ["/v1/batches", "/v1/jobs"]


NOT_OBJECTS = [
    b"",
    b"{",
    b"nonsense",
    b'{"a": NaN}',
    b'{"a": Infinity}',
    b"\xff\xfe{}",
    b'{"a": "\xff"}',
    b'{"a": "\\ud800"}',
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"body":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    b'{"body": {"messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}}",
    b"null",
    b"[]",
    b'"text"',
    b"7",
]


def test_a_body_that_is_no_json_object_is_400(client: httpx.Client, subtests: pytest.Subtests) -> None:
    for route in POSTS:
        for body in NOT_OBJECTS:
            with subtests.test(route=repr(route)[:60], body=repr(body)[:60]):
                error(client.post(route, content=body), 400)


FIELDS_OF_BATCHES = [
    "input_file_id",
    "endpoint",
    "completion_window",
    "lane",
    "metadata.k",
    "metadata.key",
    "output_expires_after.anchor",
]


def test_nul_in_any_string_of_a_batch_is_400(client: httpx.Client, subtests: pytest.Subtests) -> None:
    for field in FIELDS_OF_BATCHES:
        with subtests.test(field=repr(field)[:60]):
            asked: dict[str, Any] = batch_of(upload(client)["id"])
            name, _, inner = field.partition(".")
            value: Any = "a\0b"
            if field == "metadata.key":
                value = {"a\0b": "v"}
            elif inner:
                value = {inner: "a\0b", "seconds": 3_600} if inner == "anchor" else {inner: "a\0b"}
            error(client.post("/v1/batches", json=asked | {name: value}), 400)


FIELDS_OF_JOBS = ["model", "endpoint", "completion_window", "lane", "metadata", "custom_id", "body.model"]


def test_nul_in_any_string_of_a_job_that_is_kept_as_text_is_400(
    client: httpx.Client, model: str, subtests: pytest.Subtests
) -> None:
    for field in FIELDS_OF_JOBS:
        with subtests.test(field=repr(field)[:60]):
            asked: dict[str, Any] = {"model": model, "endpoint": CHAT, "body": chat()}
            if field == "metadata":
                asked["metadata"] = {"k": "\0"}
            elif field == "custom_id":
                asked = {"model": model, "requests": [{"custom_id": "a\0", "body": chat()}]}
            elif field == "body.model":
                asked["body"] = chat() | {"model": "a\0"}
            else:
                asked[field] = "a\0"
            error(client.post("/v1/jobs", json=asked), 400)


def test_nul_in_a_prompt_is_the_callers_business(client: httpx.Client, model: str) -> None:
    assert client.post("/v1/jobs", json={"model": model, "body": chat("a\0b")}).status_code == 200


PATHS_WITH_NUL = [
    "/v1/files/a%00b",
    "/v1/files/a%00b/content",
    "/v1/batches/%00",
    "/v1/jobs/%00",
    "/v1/models/%00",
    "/v1/files?after=%00",
    "/v1/files?purpose=a%00",
    "/v1/batches?after=a%00",
    "/v1/jobs?after=a%00",
    "/health/work?model=a%00",
]


def test_nul_in_a_url_is_400(client: httpx.Client, subtests: pytest.Subtests) -> None:
    for path in PATHS_WITH_NUL:
        with subtests.test(path=repr(path)[:60]):
            error(client.get(path), 400)


PATHS_NOT_UTF8 = ["/v1/files/%ff%fe", "/v1/batches/%ed%a0%80", "/v1/files?after=%ff", "/v1/models/%ff"]


def test_a_url_that_is_no_utf8_names_nothing(client: httpx.Client, subtests: pytest.Subtests) -> None:
    for path in PATHS_NOT_UTF8:
        with subtests.test(path=repr(path)[:60]):
            error(client.get(path), 404)


WRONG_PARAMETERS = [
    ("/v1/batches?limit=0", "limit"),
    ("/v1/batches?limit=101", "limit"),
    ("/v1/batches?limit=x", "limit"),
    ("/v1/files?limit=10001", "limit"),
    ("/v1/files?order=random", "order"),
    ("/v1/files?after=" + "x" * 201, "after"),
    ("/v1/batches?limit=" + "9" * 5_000, "limit"),
]


def test_a_wrong_parameter_of_a_list_is_named(client: httpx.Client, subtests: pytest.Subtests) -> None:
    for path, param in WRONG_PARAMETERS:
        with subtests.test(path=repr(path)[:60], param=repr(param)[:60]):
            assert error(client.get(path), 400)["param"] == param


def test_a_url_that_is_not_served_has_the_envelope_too(client: httpx.Client) -> None:
    assert error(client.get("/v1/nothing"), 404)["code"] == "unknown_url"
    assert error(client.get("/v1/files/"), 404)
    refused = client.put("/v1/files")
    assert error(refused, 405)["code"] == "method_not_allowed"
    assert refused.headers["allow"] == "GET, HEAD, POST"
    assert client.put("/v1/batches/estimate").headers["allow"] == "POST", "it is no batch"


def test_a_body_over_the_limit_is_413_whether_it_says_so_or_not(client: httpx.Client, settings: Settings) -> None:
    body = b'{"a":"' + b"x" * settings.max_json_bytes + b'"}'
    for route in POSTS:
        error(client.post(route, content=body), 413)
        error(client.post(route, content=iter([body[:65_536], body[65_536:]])), 413)


def test_a_declared_length_is_refused_before_the_body_comes(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    for route in POSTS:
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            head = f"POST {route} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: 99999999999"
            connection.sendall(head.encode() + b"\r\n\r\n")
            assert connection.recv(1_000).startswith(b"HTTP/1.1 413")


def test_a_compressed_body_is_not_read(client: httpx.Client) -> None:
    for route in POSTS:
        error(client.post(route, content=b"\x1f\x8b", headers={"content-encoding": "gzip"}), 415)


WRONG_IDEMPOTENCY_KEYS = ["", "x" * 256]


def test_an_idempotency_key_has_its_limits(client: httpx.Client, subtests: pytest.Subtests) -> None:
    for key in WRONG_IDEMPOTENCY_KEYS:
        with subtests.test(key=repr(key)[:60]):
            file = upload(client)["id"]
            error(client.post("/v1/batches", json=batch_of(file), headers={"idempotency-key": key}), 400)


def test_numbers_of_any_size_are_no_trouble(client: httpx.Client, model: str) -> None:
    file = upload(client)["id"]
    huge = b"9" * 400
    body = b'{"input_file_id":"%b","endpoint":"%b","completion_window":"24h","output_expires_after":' % (
        file.encode(),
        CHAT.encode(),
    )
    error(client.post("/v1/batches", content=body + b'{"anchor":"created_at","seconds":' + huge + b"}}"), 400)
    answer = client.post("/v1/jobs", content=b'{"model":"tiny","body":{"seed":' + huge + b"}}")
    assert answer.status_code in (200, 400)


def test_an_endless_url_or_header_is_no_500(client: httpx.Client) -> None:
    assert client.get("/v1/files/" + "x" * 20_000).status_code in (400, 404, 414, 431)
    create(client, upload(client)["id"])
