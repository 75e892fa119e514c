"""Slow readers and slow writers, hundreds at once (F15): flat memory, nobody else held up, and none stays forever."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPResponse

import httpx
import psutil
import pytest
from api.live import batch_of, error, upload
from e2e.live import TLS, until
from faults.house import KEY, House

MIB = 1024 * 1024
PATIENCE_SECONDS = 3.0  # of api-2
IDLE_SECONDS = 7  # of its connections: longer than uvicorn's own 5
FILE = os.urandom(MIB) * 32

Open = Callable[..., socket.socket]


@pytest.fixture(scope="module")
def house(build: Callable[..., House]) -> House:
    """Two APIs: one with little room for JSON bodies, one with little patience."""
    impatient = {"slow_body_seconds": str(PATIENCE_SECONDS), "keep_alive_seconds": str(IDLE_SECONDS)}
    own = {"api-1": {"max_bodies_bytes": str(8 * MIB)}, "api-2": impatient}
    house = build(apis=2, keepers=0, ios=0, gpus=0, own=own, wait=False)
    for name in ("api-1", "api-2"):
        house.until(lambda name=name: _answers(address(house, name)), f"{name} answers", 150)
    return house


@pytest.fixture(scope="module")
def file(house: House) -> str:
    """A file that fits into no socket's buffer."""
    with client(house, "api-1") as http:
        return str(upload(http, FILE)["id"])


@pytest.fixture
def connect(house: House) -> Iterator[Open]:
    """Opens a connection to an API and sends the head of a request, and what is there of its body."""
    with ExitStack() as stack:

        def opened(name: str, request: str, body: bytes = b"", *headers: str, buffer: int = 0) -> socket.socket:
            one = stack.enter_context(socket.socket())
            if buffer:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            one.settimeout(30)
            one.connect(address(house, name))
            head = [f"{request} HTTP/1.1", "host: x", f"authorization: Bearer {KEY}", *headers]
            one.sendall("\r\n".join([*head, "", ""]).encode() + body)
            return one

        yield opened


def address(house: House, name: str) -> tuple[str, int]:
    return "127.0.0.1", int(house.residents[name].arguments[-1])


def client(house: House, name: str) -> httpx.Client:
    host, port = address(house, name)
    head = {"authorization": f"Bearer {KEY}"}
    return httpx.Client(base_url=f"http://{host}:{port}", headers=head, timeout=30, trust_env=False)


def _answers(where: tuple[str, int]) -> bool:
    try:
        return httpx.get(f"http://{where[0]}:{where[1]}/health/ready", trust_env=False, verify=TLS).status_code == 200
    except httpx.HTTPError:
        return False


FORM = ("content-type: multipart/form-data; boundary=B", f"content-length: {4 * MIB}")
PART = b'--B\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'


def settled_blobs(house: House) -> int:
    """How many there are once all that was cut is taken away."""
    house.until(lambda: house.ask("select count(*) from intents") == 0, "what was cut is taken away", 60)
    return sum(1 for path in house.blobs.rglob("*") if path.is_file())


@pytest.mark.slow
def test_hundreds_of_slow_clients_cost_little_and_hold_up_nobody(house: House, file: str, connect: Open) -> None:
    with client(house, "api-1") as http:
        small_calls(http, 50)
        before, files_before = house.peak_mib("api-1"), settled_blobs(house)
        uploads = [connect("api-1", "POST /v1/files", PART + bytes(150_000), *FORM) for _ in range(200)]
        never = [connect("api-1", f"GET /v1/files/{file}/content", buffer=4_096) for _ in range(200)]
        json = (f"content-length: {MIB}", "content-type: application/json")
        jobs = [connect("api-1", "POST /v1/jobs", bytes(900_000), *json) for _ in range(30)]
        house.until(lambda: house.ask("select count(*) from intents") == 200, "all uploads have begun", 60)
        assert all(one.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 200" for one in never), "all downloads have begun"

        slowest = small_calls(http, 200)[-3]  # the 99th percentile
        grown = house.peak_mib("api-1") - before
        busy = house.ask("""
            select count(*) from pg_stat_activity
            where datname = current_database() and application_name = 'penstock' and starts_with(state, 'idle in')""")
        print(f"p99 of small calls {slowest * 1_000:.1f} ms, memory grew by {grown:.0f} MiB")
        assert grown < 250, "half a MiB for each of 400 clients, 8 MiB for JSON"
        assert slowest < 0.5
        assert busy == 0, "no transaction waits for a client"
        assert upload(http, FILE[:MIB])["bytes"] == MIB
        assert error(http.post("/v1/jobs", content=bytes(900_000)), 429)["code"] == "rate_limit_exceeded"
        others = {"authorization": f"Bearer {house.key_of('neighbour')}"}
        large = http.post("/v1/jobs", content=bytes(900_000), headers=others)
        assert large.status_code == 400, "half of the room is for others"
        assert http.post("/v1/batches", json=batch_of(file)).status_code == 200

        for one in (*uploads, *jobs):
            one.close()
        assert settled_blobs(house) == files_before + 1, "what was cut is taken away"
        house.until(lambda: http.post("/v1/jobs", content=bytes(900_000)).status_code == 400, "there is room again")


def small_calls(http: httpx.Client, count: int) -> list[float]:
    """How long small calls take, sorted."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        assert http.get("/v1/batches", params={"limit": 1}).status_code == 200
        took.append(time.perf_counter() - began)
    return sorted(took)


def drip(one: socket.socket, seconds: float) -> bytes:
    """Send a byte every 0.1 s until there is an answer; all of it."""
    end, answer = time.monotonic() + seconds, b""
    one.settimeout(0.1)
    while time.monotonic() < end:
        try:
            while piece := one.recv(65_536):
                answer += piece
            return answer
        except TimeoutError:
            one.sendall(b"x")
        except ConnectionError:
            return answer
    raise AssertionError("no answer")


@pytest.mark.parametrize("sends", ["a byte now and then", "nothing"])
def test_an_upload_without_progress_is_408_and_leaves_nothing(house: House, connect: Open, sends: str) -> None:
    before = settled_blobs(house)
    began = time.monotonic()
    one = connect("api-2", "POST /v1/files", PART + bytes(500_000), *FORM)
    answer = drip(one, 15) if sends.startswith("a byte") else rest(one)
    assert PATIENCE_SECONDS * 0.9 < time.monotonic() - began < PATIENCE_SECONDS + 5
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"code":"request_timeout"' in answer
    assert b"connection: close" in answer
    assert settled_blobs(house) == before


def rest(one: socket.socket) -> bytes:
    """All that comes until the other side ends it."""
    answer = b""
    try:
        while piece := one.recv(65_536):
            answer += piece
    except ConnectionError:
        pass
    return answer


def test_a_json_body_without_progress_is_408(connect: Open) -> None:
    one = connect("api-2", "POST /v1/jobs", b'{"model":', "content-length: 100", "content-type: application/json")
    assert rest(one).startswith(b"HTTP/1.1 408")


def test_an_upload_that_is_slow_but_goes_on_is_fine(house: House, connect: Open) -> None:
    end = b'\r\n--B\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--B--\r\n'
    data = bytes(200_000)
    headers = (FORM[0], f"content-length: {len(PART) + len(data) + len(end)}")
    one = connect("api-2", "POST /v1/files", PART, *headers)
    began = time.monotonic()
    for offset in range(0, len(data), 20_000):
        one.sendall(data[offset : offset + 20_000])
        time.sleep(0.35)  # in all longer than the API's patience
    one.sendall(end)
    assert time.monotonic() - began > PATIENCE_SECONDS
    assert one.recv(65_536).startswith(b"HTTP/1.1 200")


def sockets(house: House, name: str) -> int:
    return len(psutil.Process(house.pid(name)).net_connections("tcp"))


def test_a_reader_that_never_reads_is_cut(house: House, file: str, connect: Open) -> None:
    before = sockets(house, "api-2")
    readers = [connect("api-2", f"GET /v1/files/{file}/content", buffer=4_096) for _ in range(20)]
    until(lambda: sockets(house, "api-2") >= before + 20, "they are there", 10)
    until(lambda: sockets(house, "api-2") <= before, "they are cut", PATIENCE_SECONDS * 2 + 10)
    assert len(rest(readers[0])) < len(FILE)


def test_a_reader_that_is_slow_but_goes_on_gets_everything(house: House, file: str, connect: Open) -> None:
    one = connect("api-2", f"GET /v1/files/{file}/content", b"", "range: bytes=0-8388607", buffer=65_536)
    began, size = time.monotonic(), 0
    while size < 8 * MIB:
        piece = one.recv(1_048_576)
        assert piece, f"cut after {size} bytes"
        size += len(piece)
        if time.monotonic() - began < PATIENCE_SECONDS * 2:
            time.sleep(0.1)
    assert time.monotonic() - began > PATIENCE_SECONDS


HEADS = [b"", b"GET /v1/fil", b"GET /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bear"]


@pytest.mark.slow
def test_a_head_that_does_not_come_is_given_up(house: House, subtests: pytest.Subtests) -> None:
    for head in HEADS:
        with subtests.test(head=repr(head)), socket.create_connection(address(house, "api-2"), timeout=30) as one:
            began = time.monotonic()
            one.sendall(head)
            answer = drip(one, 15) if head else rest(one)
            assert time.monotonic() - began < PATIENCE_SECONDS + 5
            assert answer.startswith(b"HTTP/1.1 408")


def test_a_connection_that_nobody_uses_stays_open_for_as_long_as_is_said(connect: Open) -> None:
    kept, closed = connect("api-1", "GET /health/live"), connect("api-2", "GET /health/live")
    assert alive(kept)
    assert alive(closed)
    began = time.monotonic()
    assert closed.recv(1) == b""
    assert time.monotonic() - began > IDLE_SECONDS - 1
    kept.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
    assert alive(kept)


def alive(one: socket.socket) -> bool:
    """Read one answer, whole, from a connection that stays open."""
    answer = HTTPResponse(one)
    answer.begin()
    return answer.status == 200 and bool(answer.read())
