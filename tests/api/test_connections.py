"""Connections of one API process: as many as it can hold, who waits makes room; and whose word on addresses counts."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from api.live import KEY, chat, http, serving
from pydantic import ValidationError
from structlog.testing import capture_logs

from penstock.settings import Settings

MOST = 4
GET = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"
Open = Callable[[], socket.socket]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Room for a few."""
    return settings.model_copy(update={"max_connections": MOST})


@pytest.fixture
def connect(url: str) -> Iterator[Open]:
    """Opens a connection to the API, and sends nothing."""
    host, port = url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection((host, int(port)), timeout=20))


def ask(connection: socket.socket, request: bytes = GET) -> bytes:
    """The answer, whole."""
    connection.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < _length(answer):
        piece = connection.recv(65_536)
        if not piece:
            break
        answer += piece
    return answer


def _length(answer: bytes) -> int:
    head = answer.lower().partition(b"\r\n\r\n")[0]
    return int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])


def long_poll(connection: socket.socket, job: str) -> None:
    """A request that is under way for long."""
    connection.sendall(
        f"GET /v1/jobs/{job}?wait=15 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n\r\n".encode()
    )


def test_who_waits_longest_makes_room_and_who_works_stays(connect: Open) -> None:
    silent, half, kept, last = connect(), connect(), connect(), connect()
    half.sendall(GET[:20])
    for one in (kept, last):
        assert ask(one).startswith(b"HTTP/1.1 200"), "its answer is done: it waits since now"
    ask(connect())
    assert silent.recv(1) == b"", "it waited longest"
    assert ask(last).startswith(b"HTTP/1.1 200")
    ask(connect())
    assert half.recv(1) == b"", "half a head is no request"
    ask(connect())
    assert kept.recv(1) == b""
    assert ask(last).startswith(b"HTTP/1.1 200")


def test_when_all_work_who_comes_is_told_503_and_to_try_again(client: httpx.Client, connect: Open, model: str) -> None:
    job = client.post("/v1/jobs", json={"model": model, "body": chat()}).json()["id"]
    client.close()
    working = [connect() for _ in range(MOST)]
    for one in working:
        long_poll(one, job)
    refused = _until_refused(connect)
    head, _, body = refused.partition(b"\r\n\r\n")
    assert b"retry-after: 5" in head
    assert json.loads(body)["error"]["code"] == "too_many_connections"
    assert connect().recv(1_000).startswith(b"HTTP/1.1 408"), "who asks for nothing meanwhile is not kept either"
    working[0].close()
    _until(lambda: ask(connect()).startswith(b"HTTP/1.1 200"))


def _until_refused(connect: Open) -> bytes:
    """The API has to read the requests first."""
    answers: list[bytes] = []
    _until(lambda: answers.append(ask(connect())) or b" 503 " in answers[-1])
    return answers[-1]


def _until(look: Callable[[], Any]) -> None:
    end = time.monotonic() + 10
    while not look():
        assert time.monotonic() < end


@pytest.mark.parametrize(
    ("trusted", "told", "seen"),
    [
        ("127.0.0.1,::1", "203.0.113.7", "203.0.113.7"),
        ("127.0.0.0/8,198.51.100.0/24", "203.0.113.9, 203.0.113.7, 198.51.100.1", "203.0.113.7"),
        ("10.0.0.0/8", "203.0.113.7", "127.0.0.1"),
        ("", "203.0.113.7", "127.0.0.1"),
    ],
)
def test_only_a_trusted_proxy_says_where_a_request_came_from(
    settings: Settings, trusted: str, told: str, seen: str
) -> None:
    asked = settings.model_copy(update={"trusted_proxies": trusted})
    with capture_logs() as logs, serving(asked) as url, http(url) as client:
        client.get("/v1/models", headers={"x-forwarded-for": told})
        client.get("/v1/models", headers={"x-forwarded-for": told, "authorization": "Bearer wrong"})
    lines = [line for line in logs if line["event"] == "request"]
    assert [(line["status"], line["client"]) for line in lines] == [(200, seen), (401, seen)]


def test_a_proxy_is_named_by_its_address() -> None:
    for wrong in ("*", "proxy.example", "10.0.0.0/33"):
        with pytest.raises(ValidationError):
            Settings(trusted_proxies=wrong)
