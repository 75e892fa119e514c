"""Connections to one API process are bounded: idle ones make room, and a proxy is believed only if it is named."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx
import pytest
from api import live
from api.live import KEY, serving

from penstock.api.http.connection import connections
from penstock.settings import Settings

MOST = 4
PING = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture
def where(settings: Settings) -> Iterator[tuple[str, int]]:
    """An API with few places."""
    with serving(settings, http=connections(20.0, MOST)) as url:
        parts = urlsplit(url)
        yield str(parts.hostname), int(parts.port or 0)


def answered(one: socket.socket) -> bytes:
    """The first line of an answer, which is read to its end; empty if the connection was closed."""
    one.settimeout(10)
    answer = b""
    try:
        while not answer.endswith((b"}", b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")):
            piece = one.recv(4_096)
            if not piece:
                break
            answer += piece
    except ConnectionError:
        pass
    return answer.split(b"\r\n")[0]


@pytest.mark.parametrize("begun", [b"", b"GET /health/live HTTP/1.1\r\n"])
def test_who_comes_takes_the_place_of_the_one_that_is_idle_longest(where: tuple[str, int], begun: bytes) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(where)) for _ in range(MOST)]
        for one in idle:
            one.sendall(PING)
            assert answered(one) == b"HTTP/1.1 200 OK"
            one.sendall(begun)
        for number in range(2):
            new = stack.enter_context(socket.create_connection(where))
            new.sendall(PING)
            assert answered(new) == b"HTTP/1.1 200 OK"
            assert answered(idle[number]) == b"", "it has gone"
        idle[2].sendall(PING[len(begun) :])
        assert answered(idle[2]) == b"HTTP/1.1 200 OK"


def test_if_all_have_a_request_in_work_the_next_reads_a_503_and_later_there_is_a_place(where: tuple[str, int]) -> None:
    head = f"POST /v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: 100\r\n\r\n"
    with ExitStack() as stack:
        busy = [stack.enter_context(socket.create_connection(where)) for _ in range(MOST)]
        for one in busy:
            one.sendall(head.encode() + b"{")
        with pytest.raises(AssertionError):
            _ping(where, 1)
        with socket.create_connection(where) as new:
            assert answered(new) == b"HTTP/1.1 503 Service Unavailable"
        busy[0].close()
        _ping(where, 20)


def _ping(where: tuple[str, int], tries: int) -> None:
    """Ask until there is an answer."""
    for _ in range(tries):
        with socket.create_connection(where) as new:
            new.sendall(PING)
            if answered(new) == b"HTTP/1.1 200 OK":
                return
    raise AssertionError("no place")


@pytest.mark.parametrize(("trusted", "client"), [("127.0.0.1", "203.0.113.9"), ("192.0.2.1", "127.0.0.1")])
def test_a_forwarded_address_is_believed_only_of_a_trusted_proxy(settings: Settings, trusted: str, client: str) -> None:
    with serving(settings, forwarded_allow_ips=trusted) as url:
        httpx.get(f"{url}/health/live", headers={"x-forwarded-for": "203.0.113.9"}, trust_env=False)
        [line] = [line for line in live.log_lines() if "/health/live" in line]
        assert f"client={client}" in line
