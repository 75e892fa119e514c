"""Hostile input (F17): through the API, an io worker and an engine; a clear error or a right answer, in flat memory."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from api.live import error, upload
from e2e.live import CHAT, chat
from faults.house import KEY, House

pytestmark = pytest.mark.timeout(300)

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def house(build: Callable[..., House]) -> Iterator[House]:
    """A house that still works when all is over, none of whose processes has grown or died."""
    house = build(hint_again_seconds="1", slow_body_seconds="5", max_file_lines="100000")
    assert house.client.ended(house.client.submit([chat("warm", "hello")]).id).status == "completed"
    pids = {name: house.pid(name) for name in house.residents}
    before = {name: peak_mib(house, name) for name in ("api-1", "io-1")}
    yield house
    assert house.client.ended(house.client.submit([chat("last", "hello")]).id).status == "completed"
    grown = {name: round(peak_mib(house, name) - was) for name, was in before.items()}
    print(f"memory grew by {grown} MiB")
    assert pids == {name: house.pid(name) for name in house.residents if house.lives(name)}
    assert grown["api-1"] < 100
    assert grown["io-1"] < 150


def peak_mib(house: House, name: str) -> float:
    """The most memory that the process ever had."""
    status = Path(f"/proc/{house.pid(name)}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


# Files: what a batch over them comes to.


def line(custom_id: str = '"a"', body: str = "", text: str = '"hi"', more: str = "") -> bytes:
    """A request with raw JSON in these places."""
    return (
        f'{{"custom_id":{custom_id},"method":"POST","url":"{CHAT}",{more}'
        f'"body":{{"model":"tiny","messages":[{{"role":"user","content":{text}}}]{body}}}}}'
    ).encode()


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


class Refused(NamedTuple):
    """The batch fails, and this is its first error."""

    code: str
    line: int | None = 1


class Answered(NamedTuple):
    """Each of these lines is in the output or the error file, under its own custom_id; what the output says, if so."""

    ids: list[str]
    says: list[str] | None = None


NOT_JSON = Refused("invalid_json_line")
NOT_UTF8 = Refused("invalid_encoding", None)
EITHER = Answered(["a"])  # the engine may refuse it: that is its answer

FILES: dict[str, tuple[bytes, Refused | Answered]] = {
    "a BOM, CRLF, blank lines and no end of the last line": (
        b"\xef\xbb\xbf" + line('"1"') + b"\r\n\r\n \t\r\n" + line('"2"') + b"\r\n" + line('"3"'),
        Answered(["1", "2", "3"], ["hi", "hi", "hi"]),
    ),
    "an empty file": (b"", Refused("empty_file", None)),
    "30,000 blank lines": (b"\n" * 30_000, Refused("empty_file", None)),
    "a BOM alone": (b"\xef\xbb\xbf", Refused("empty_file", None)),
    "UTF-16": (line().decode().encode("utf-16"), NOT_UTF8),
    "gzip": (gzip.compress(line()), Answered(["a"], ["hi"])),
    "two values on one line": (line() + line(), NOT_JSON),
    "a line that is cut": (line('"1"') + b"\n" + line('"2"')[:-3], Refused("invalid_json_line", 2)),
    "bytes that are no UTF-8 in a prompt": (line(text='"X"').replace(b"X", b"\xc3\x28"), NOT_UTF8),
    "an encoded surrogate": (line(text='"X"').replace(b"X", b"\xed\xa0\x80"), NOT_UTF8),
    "NUL in a prompt": (line(text=r'"a\u0000b"'), Answered(["a"], ["a\0b"])),
    "NUL in an answer": (line(text='"[[nul]] x"'), Answered(["a"])),
    "a lone surrogate in an answer": (line(text='"[[surrogate]] x"'), Answered(["a"])),
    "a lone surrogate in a prompt": (line(text=r'"\ud800"'), NOT_JSON),
    "a lone surrogate in a custom_id": (line(r'"\ud800"'), NOT_JSON),
    "NUL in a custom_id": (line(r'"a\u0000b"'), Answered(["a\0b"], ["hi"])),
    "NUL in two equal custom_ids": (line(r'"\u0000"') + b"\n" + line(r'"\u0000"'), Refused("duplicate_custom_id", 2)),
    "NUL in a url": (line().replace(b"/v1/chat", rb"\u0000"), Refused("url_mismatch")),
    "odd characters in custom_ids": (
        b"\n".join([line('"\u2028"'), line('"\x85\u202e"'), line('"\U0001f9e8"'), line(r'"\r\n"'), line('"../../x"')]),
        Answered(["\u2028", "\x85\u202e", "\U0001f9e8", "\r\n", "../../x"]),
    ),
    "a custom_id of 10 kB": (line(f'"{"x" * 10_000}"'), Refused("invalid_request")),
    "a custom_id of 4 MiB": (line(f'"{"x" * 4 * MIB}"'), Refused("invalid_request")),
    "a custom_id that is deep": (line(deep(100_000)), NOT_JSON),
    "a body that is deep": (line(body=f',"x":{deep(500_000)}'), NOT_JSON),
    "a body that is as deep as readers allow": (line(body=f',"x":{deep(900)}'), EITHER),
    "a field beside the body that is deep": (line(more=f'"x":{deep(500_000)},'), NOT_JSON),
    "a key of 4 MiB": (line(body=f',"{"k" * 4 * MIB}":1'), EITHER),
    "100,000 keys": (line(body="".join(f',"k{n}":{n}' for n in range(100_000))), EITHER),
    "NaN": (line(body=',"x":NaN'), NOT_JSON),
    "Infinity": (line(body=',"x":-Infinity'), NOT_JSON),
    "1e999": (line(body=',"temperature":1e999'), EITHER),
    "max_tokens 1e999": (line(body=',"max_tokens":1e999'), Refused("invalid_request")),
    "an integer of 400 digits": (line(body=f',"max_tokens":{"9" * 400}'), EITHER),
    "an integer of 5,000 digits": (line(body=f',"seed":{"9" * 5_000}'), EITHER),
    "negative max_tokens": (line(body=',"max_tokens":-5'), EITHER),
    "a custom_id that comes twice in a line": (line(more='"custom_id":"b",'), Answered(["b"], ["hi"])),
    "a model that comes twice in a body": (line(body=',"model":"nobody"'), Refused("model_not_found")),
    "a body that is a string": (line().replace(b'"body":{', b'"body":"{').replace(b"}]}}", b'"}'), NOT_JSON),
    "names with escapes": (line().replace(b"custom_id", rb"\u0063ustom_id"), Answered(["a"], ["hi"])),
    "CR alone between lines": (line('"1"') + b"\r" + line('"2"'), NOT_JSON),
}


def test_every_file_is_refused_with_its_reason_or_each_of_its_lines_answered_once(
    house: House, subtests: pytest.Subtests
) -> None:
    batches = {name: house.client.submit(content).id for name, (content, _) in FILES.items()}
    for name, (_, wanted) in FILES.items():
        with subtests.test(file=name):
            batch = house.client.ended(batches[name], 120)
            if isinstance(wanted, Refused):
                assert batch.status == "failed", batch.request_counts
                assert batch.errors
                assert batch.errors.data
                assert (batch.errors.data[0].code, batch.errors.data[0].line) == wanted
                continue
            assert batch.status == "completed", batch.errors
            output, errors = house.client.file(batch.output_file_id), house.client.file(batch.error_file_id)
            assert sorted(one["custom_id"] for one in output + errors) == sorted(wanted.ids)
            assert all(one["response"]["status_code"] < 500 for one in errors), errors
            if wanted.says is not None:
                assert [one["response"]["body"]["choices"][0]["message"]["content"] for one in output] == wanted.says


def pieces(head: bytes, piece: bytes, times: int, tail: bytes) -> Iterator[bytes]:
    yield b'--B\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    yield b'--B\r\ncontent-disposition: form-data; name="file"; filename="big"\r\n\r\n' + head
    for _ in range(times):
        yield piece
    yield tail + b"\r\n--B--\r\n"


def too_many() -> Iterator[bytes]:
    """One request more than the house allows: a tenth of what is allowed elsewhere."""
    *first, end = pieces(b"", b"", 0, b"")
    yield from first
    for n in range(0, 100_001, 1_000):
        yield b"".join(line(f'"{k}"') + b"\n" for k in range(n, min(n + 1_000, 100_001)))
    yield end


LARGE: dict[str, tuple[Callable[[], Iterator[bytes]], Refused]] = {
    "a line of 200 MB": (
        lambda: pieces(line()[:-1] + b',"x":"', b"x" * MIB, 200, b'"}\n' + line('"b"')),
        Refused("invalid_request", 1),
    ),
    "a line more than may be": (too_many, Refused("too_many_tasks", None)),
    "1,000,001 blank lines": (lambda: pieces(b"", b"\n" * 1_000_001, 1, b"\n"), Refused("too_many_tasks", None)),
}


@pytest.mark.slow
def test_a_large_file_is_refused_with_its_reason(house: House, subtests: pytest.Subtests) -> None:
    for name, (body, wanted) in LARGE.items():
        with subtests.test(file=name):
            form = {"content-type": "multipart/form-data; boundary=B"}
            file = house.client.http.post("/files", content=body(), headers=form).json()["id"]
            batch = house.client.sdk.batches.create(input_file_id=file, endpoint=CHAT, completion_window="24h")
            ended = house.client.ended(batch.id, 120)
            assert ended.errors
            assert ended.errors.data
            assert (ended.errors.data[0].code, ended.errors.data[0].line) == wanted
            house.client.http.delete(f"/files/{file}")


# Requests, byte by byte.


def request(what: str, body: bytes = b"", *headers: str | bytes, length: bool = True) -> bytes:
    """A request with a key, as bytes."""
    head = [what.encode() + b" HTTP/1.1", b"host: x", b"connection: close", b"authorization: Bearer " + KEY.encode()]
    head += [one.encode() if isinstance(one, str) else one for one in headers]
    if length:
        head.append(b"content-length: %d" % len(body))
    return b"\r\n".join([*head, b"", b""]) + body


JSON = "content-type: application/json"
FORM = "content-type: multipart/form-data; boundary=B"
JOB = json.dumps({"model": "tiny", "body": {"messages": []}}).encode()
BOMB = gzip.compress(gzip.compress(bytes(100 * MIB)))


def form(*parts: bytes, end: bytes = b"--B--\r\n") -> bytes:
    return b"".join(b"--B\r\ncontent-disposition: form-data; " + part + b"\r\n" for part in parts) + end


PURPOSE, FILE = b'name="purpose"\r\n\r\nbatch', b'name="file"; filename="f"\r\n\r\n{}'


def posted(body: bytes, *headers: str | bytes) -> bytes:
    return request("POST /v1/jobs", body, JSON, *headers)


def uploaded(body: bytes, head: str = FORM) -> bytes:
    return request("POST /v1/files", body, head)


# What is sent, and the statuses that are right; 0 is a connection that is closed without a word.
REQUESTS: dict[str, tuple[bytes, set[int]]] = {
    "a negative content-length": (request("POST /v1/jobs", b"", "content-length: -1", length=False), {400}),
    "a content-length of 400 digits": (
        request("POST /v1/jobs", b"", f"content-length: {'9' * 400}", length=False),
        {400, 413},
    ),
    "two lengths": (posted(JOB, "content-length: 5"), {400}),
    "a length and chunks": (posted(b"0\r\n\r\n", "transfer-encoding: chunked"), {400}),
    "chunks without an end": (
        request("POST /v1/jobs", b'5\r\n{"a":', JSON, "transfer-encoding: chunked", length=False),
        {408},
    ),
    "a chunk that is none": (
        request("POST /v1/jobs", b"zz\r\nhello\r\n", JSON, "transfer-encoding: chunked", length=False),
        {0, 400},
    ),
    "a chunk of 2**80 bytes": (
        request("POST /v1/jobs", b"f" * 20 + b"\r\nhello\r\n", JSON, "transfer-encoding: chunked", length=False),
        {0, 400},
    ),
    "a chunk's extension without an end": (
        request("POST /v1/jobs", b"5;x=" + b"y" * MIB, JSON, "transfer-encoding: chunked", length=False),
        {0, 400, 431},
    ),
    "trailers without an end": (
        request(
            "POST /v1/jobs",
            b"0\r\n" + b"x: y\r\n" * 200_000,
            JSON,
            "transfer-encoding: chunked",
            length=False,
        ),
        {0, 400, 431},
    ),
    "a header of 100 kB": (request("GET /v1/files", b"", "x: " + "y" * 100_000), {200, 431}),
    "a header of 8 MiB": (request("GET /v1/files", b"", "x: " + "y" * 8 * MIB), {0, 431}),
    "100,000 headers": (request("GET /v1/files", b"", *[f"x{n}: y" for n in range(100_000)]), {0, 400, 431}),
    "a URL of 8 MiB": (request("GET /v1/files/" + "x" * 8 * MIB), {0, 431}),
    "a header with NUL": (request("GET /v1/files", b"", "x: a\0b"), {400}),
    "a header that goes on": (request("GET /v1/files", b"", "x: a\r\n b"), {200, 400}),
    "a header without a name": (request("GET /v1/files", b"", ": a"), {400}),
    "a method of its own": (request("BREW /v1/files"), {400, 405}),
    "a URL that is none": (request("GET v1/files"), {400, 404}),
    "a URL with bytes": (request("GET /v1/files").replace(b"/v1/files", b"/v1/\xff\xfe"), {400, 404}),
    "another version of HTTP": (request("GET /v1/files").replace(b"HTTP/1.1", b"HTTP/9.9"), {400, 505}),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400}),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), {400}),
    "a websocket": (
        request("GET /v1/files", b"", "upgrade: websocket", "connection: upgrade", "sec-websocket-version: 13"),
        {200, 400, 404, 426},
    ),
    "a key of bytes": (
        request("GET /v1/files").replace(KEY.encode(), b"\xff\xfe\x80"),
        {400, 401},
    ),
    "a key of 60 kB": (request("GET /v1/files").replace(KEY.encode(), b"k" * 60_000), {401}),
    "an Idempotency-Key of bytes": (posted(JOB, b"idempotency-key: \xff\xfe"), {400}),
    "an Idempotency-Key of UTF-8": (posted(JOB, "idempotency-key: schl\u00fcssel \U0001f511"), {400}),
    "an Idempotency-Key with a tab": (posted(JOB, "idempotency-key: a\tb"), {400}),
    "a zip bomb": (posted(BOMB, "content-encoding: gzip"), {415}),
    "a nested zip bomb": (posted(BOMB, "content-encoding: gzip, gzip"), {415}),
    "a zip bomb behind identity": (posted(BOMB, "content-encoding: identity", "content-encoding: gzip"), {400, 415}),
    "a zip bomb as a form": (request("POST /v1/files", BOMB, FORM, "content-encoding: GZip"), {400}),
    "Brotli": (posted(b"x", "content-encoding: br"), {415}),
    "JSON of another type": (request("POST /v1/jobs", b"<a/>", "content-type: text/xml"), {400, 415}),
    "metadata that is deep": (posted(b'{"model":"tiny","body":{},"metadata":' + deep(20_000).encode() + b"}"), {400}),
    "metadata with numbers": (posted(b'{"model":"tiny","body":{},"metadata":{"a":1e999}}'), {400}),
    "metadata with a lone surrogate": (posted(rb'{"model":"tiny","body":{},"metadata":{"a":"\ud800"}}'), {400}),
    "a job's body that is deep": (posted(b'{"model":"tiny","body":{"x":' + deep(100_000).encode() + b"}}"), {400}),
    "a job with NaN": (posted(b'{"model":"tiny","body":{"x":NaN}}'), {400}),
    "a job with 1e999": (posted(b'{"model":"tiny","body":{"x":1e999}}'), {200, 400}),
    "a job with an integer of 5,000 digits": (posted(b'{"model":"tiny","body":{"x":%b}}' % (b"9" * 5_000)), {200, 400}),
    "a job with a lone surrogate": (posted(rb'{"model":"tiny","body":{"x":"\ud800"}}'), {200, 400}),
    "a job whose custom_id is a lone surrogate": (
        posted(rb'{"model":"tiny","requests":[{"custom_id":"\ud800","body":{}}]}'),
        {400},
    ),
    "a job whose fields come twice": (posted(b'{"model":"nobody","model":"tiny","body":{},"body":{}}'), {200, 400}),
    "a job that is an array of 100,000": (
        posted(b'{"model":"tiny","requests":[%b{}]}' % (b"{}," * 100_000)),
        {400, 413},
    ),
    "a wait that is no number": (request("GET /v1/jobs/job_x?wait=nan"), {400, 404}),
    "a wait without an end": (request("GET /v1/jobs/job_x?wait=inf"), {400, 404}),
    "a wait of 1e999": (request("GET /v1/jobs/job_x?wait=1e999"), {400, 404}),
    "a limit in Arabic digits": (request("GET /v1/batches?limit=%D9%A3"), {200, 400}),
    "10,000 parameters": (request("GET /v1/files?" + "&".join(f"a{n}=1" for n in range(9_000))), {200, 400, 431}),
    "a form of 5,000 parts": (uploaded(form(*[b'name="f%d"\r\n\r\n' % n for n in range(5_000)])), {400}),
    "a part's header of 8 MiB": (
        uploaded(form(b'name="file"; filename="f"; x="' + b"y" * 8 * MIB + b'"\r\n\r\n')),
        {0, 400, 431},
    ),
    "a part's header without an end": (uploaded(b"--B\r\n" + b"x" * 8 * MIB), {0, 400, 431}),
    "100,000 headers of a part": (
        uploaded(form(b'name="file"\r\n' + b"x: y\r\n" * 100_000 + b"\r\n{}", PURPOSE)),
        {0, 400, 431},
    ),
    "a form without a boundary": (uploaded(form(PURPOSE, FILE), "content-type: multipart/form-data"), {400}),
    "a form with another boundary": (uploaded(form(PURPOSE, FILE), FORM + "C"), {400}),
    "a boundary of 71 bytes": (uploaded(form(PURPOSE, FILE), FORM[:-1] + "B" * 71), {400}),
    "a boundary with a line's end": (uploaded(form(PURPOSE, FILE), FORM[:-1] + '"a\\r\\nb"'), {400}),
    "a form in a form": (
        uploaded(form(b'name="file"\r\ncontent-type: multipart/mixed; boundary=C\r\n\r\n--C\r\n\r\n{}', PURPOSE)),
        {200, 400},
    ),
    "a form that is cut": (uploaded(form(PURPOSE, FILE, end=b"")), {400}),
    "a form after whose end more comes": (uploaded(form(PURPOSE, FILE) + b"x" * 100_000), {200, 400}),
    "a filename with NUL": (uploaded(form(PURPOSE, b'name="file"; filename="a\0b"\r\n\r\n{}')), {400}),
    "a filename that is no UTF-8": (uploaded(form(PURPOSE, b'name="file"; filename="\xff"\r\n\r\n{}')), {400}),
    "a filename of 5 kB": (uploaded(form(PURPOSE, b'name="file"; filename="%b"\r\n\r\n{}' % (b"x" * 5_000))), {400}),
    "a filename with a header in it": (
        uploaded(form(PURPOSE, b'name="file"; filename="a%0d%0aset-cookie: b"\r\n\r\n{}')),
        {200},
    ),
}


def test_every_request_is_answered_clearly_or_cut_and_never_a_500(house: House, subtests: pytest.Subtests) -> None:
    for name, (sent, statuses) in REQUESTS.items():
        with subtests.test(request=name):
            before = peak_mib(house, "api-1")
            status, body = say(house, sent)
            assert status in statuses, body[:300]
            if b'"error"' in body:
                assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
            assert peak_mib(house, "api-1") - before < 60
    assert house.client.http.get("/files").status_code == 200


def say(house: House, sent: bytes) -> tuple[int, bytes]:
    """Send these bytes and no more; the status and the body of the answer, 0 if there is none."""
    host, port = house.url.removeprefix("http://").split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=30) as one:
        try:
            one.sendall(sent)
            while piece := one.recv(65_536):
                answer += piece
        except ConnectionError:  # it was refused before all of it was sent
            pass
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


def test_the_name_of_a_file_cannot_leave_its_header(house: House) -> None:
    name = 'a"\r\nset-cookie: b=c;../x\u202e.jsonl'
    with httpx.Client(base_url=house.url, headers={"authorization": f"Bearer {KEY}"}, trust_env=False) as http:
        made = upload(http, b"{}", name)
        answer = http.get(f"/v1/files/{made['id']}/content")
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers
        assert "\r" not in answer.headers["content-disposition"]
        assert error(http.get("/v1/files/..%2f..%2fetc%2fpasswd"), 404)


def test_a_hundred_requests_in_one_packet_are_each_answered(house: House) -> None:
    one = request("GET /v1/batches?limit=1")
    status, body = say(house, one.replace(b"connection: close\r\n", b"") * 99 + one)
    assert status == 200
    assert body.count(b"HTTP/1.1 200") == 99
