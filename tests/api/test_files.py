"""Files: streamed in, streamed out, visible only when they are whole."""

from __future__ import annotations

import gzip
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from api.live import KEY, batch_of, create, error, http, serving, upload
from sqlalchemy import text

from penstock.service.core.transaction import Database
from penstock.settings import Settings

DATA = bytes(range(256)) * 64


def content(client: httpx.Client, file: str, **headers: str) -> httpx.Response:
    wanted = {"accept-encoding": "identity"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get(f"/v1/files/{file}/content", headers=wanted)


def blobs(settings: Settings) -> list[Path]:
    root = Path(settings.blob_url.removeprefix("file://"))
    return [path for path in root.rglob("*") if path.is_file()]


def test_content_has_its_length_and_an_etag_that_saves_a_second_download(client: httpx.Client) -> None:
    file = upload(client, DATA)["id"]
    whole = content(client, file)
    assert whole.content == DATA
    assert int(whole.headers["content-length"]) == len(DATA)
    assert content(client, file, if_none_match=whole.headers["etag"]).status_code == 304
    assert content(client, file, if_none_match='"another"').status_code == 200


RANGES = [
    ("bytes=0-9", 0, 10),
    ("bytes=100-", 100, len(DATA)),
    ("bytes=-5", len(DATA) - 5, len(DATA)),
    ("bytes=16000-999999", 16_000, len(DATA)),
    ("bytes=0-", 0, len(DATA)),
]


def test_a_range_is_answered_with_just_that(client: httpx.Client, subtests: pytest.Subtests) -> None:
    for wanted, start, end in RANGES:
        with subtests.test(wanted=repr(wanted)[:60], start=repr(start)[:60], end=repr(end)[:60]):
            part = content(client, upload(client, DATA)["id"], range=wanted)
            assert part.status_code == 206
            assert part.content == DATA[start:end]
            assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"


def test_a_range_that_the_file_has_not_is_416(client: httpx.Client) -> None:
    file = upload(client, DATA)["id"]
    for wanted in (f"bytes={len(DATA)}-", "bytes=-0"):
        answer = content(client, file, range=wanted)
        assert error(answer, 416)["code"] == "range_not_satisfiable"
        assert answer.headers["content-range"] == f"bytes */{len(DATA)}"


UNREAD_RANGES = ["bytes=0-1,5-6", "lines=1-2", "bytes=9-1", "bytes=-", "bytes=x-y"]


def test_ranges_that_are_not_read_here_are_passed_over(client: httpx.Client, subtests: pytest.Subtests) -> None:
    for wanted in UNREAD_RANGES:
        with subtests.test(wanted=repr(wanted)[:60]):
            answer = content(client, upload(client, DATA)["id"], range=wanted)
            assert (answer.status_code, answer.content) == (200, DATA)


def test_a_range_of_another_version_is_the_whole_file(client: httpx.Client) -> None:
    file = upload(client, DATA)["id"]
    etag = content(client, file).headers["etag"]
    assert content(client, file, range="bytes=0-1", if_range=etag).status_code == 206
    assert content(client, file, range="bytes=0-1", if_range='"older"').status_code == 200


def test_content_is_gzipped_for_who_asks(client: httpx.Client) -> None:
    file = upload(client, DATA)["id"]
    squeezed = client.get(f"/v1/files/{file}/content", headers={"accept-encoding": "gzip"})
    assert squeezed.headers["content-encoding"] == "gzip"
    assert squeezed.content == DATA
    assert content(client, file, accept_encoding="gzip;q=0").headers.get("content-encoding") is None


def test_an_empty_file_comes_back_empty(client: httpx.Client) -> None:
    answer = content(client, upload(client, b"")["id"])
    assert (answer.status_code, answer.content) == (200, b"")


FILENAMES = [
    ("../../etc/passwd", "passwd"),
    ("C:\\Users\\me\\in.jsonl", "in.jsonl"),
    ("folder/", "upload"),
    ("..", "upload"),
    ("ärger €.jsonl", "ärger €.jsonl"),
]


def test_a_filename_loses_its_path(client: httpx.Client, subtests: pytest.Subtests) -> None:
    for sent, kept in FILENAMES:
        with subtests.test(sent=repr(sent)[:60], kept=repr(kept)[:60]):
            file = upload(client, b"{}", sent)
            assert file["filename"] == kept
            assert content(client, file["id"]).status_code == 200


def form(*parts: tuple[str, bytes], end: bytes = b"--B--\r\n") -> bytes:
    """A multipart body with the boundary B; each part is what follows `form-data; `, and its bytes."""
    return (
        b"".join(
            b"--B\r\ncontent-disposition: form-data; " + head.encode() + b"\r\n\r\n" + data + b"\r\n"
            for head, data in parts
        )
        + end
    )


def post_form(client: httpx.Client, body: bytes) -> httpx.Response:
    return client.post("/v1/files", content=body, headers={"content-type": "multipart/form-data; boundary=B"})


FILE = ('name="file"; filename="f"', b"{}")
PURPOSE = ('name="purpose"', b"batch")


def test_fields_may_stand_before_or_after_the_file(client: httpx.Client) -> None:
    anchor = ('name="expires_after[anchor]"', b"created_at")
    seconds = ('name="expires_after[seconds]"', b"3600")
    for parts in ([PURPOSE, anchor, seconds, FILE], [FILE, seconds, anchor, PURPOSE]):
        file = post_form(client, form(*parts)).json()
        assert file["expires_at"] == file["created_at"] + 3_600


BAD_FORMS = [
    (form(FILE), "purpose"),
    (form(PURPOSE), "file"),
    (form(FILE, ('name="purpose"', b"batch_output")), "purpose"),
    (form(FILE, ('name="purpose"', b"finetune")), "purpose"),
    (form(FILE, ('name="purpose"', b"ba\0tch")), "purpose"),
    (form(FILE, ('name="purpose"', b"\xff")), "purpose"),
    (form(('name="file"; filename="a\0b"', b"{}"), PURPOSE), "file"),
    (form((f'name="file"; filename="{"a" * 256}"', b"{}"), PURPOSE), "file"),
    (form(FILE, FILE, PURPOSE), "file"),
    (form(FILE, PURPOSE, PURPOSE), "purpose"),
    (form(FILE, PURPOSE, ('name="colour"', b"red")), "colour"),
    (form(FILE, PURPOSE, ('name="expires_after[seconds]"', b"3600")), "expires_after[anchor]"),
    (form(FILE, PURPOSE, ('name="expires_after[anchor]"', b"created_at")), "expires_after[seconds]"),
    (form(FILE, ('name="purpose"', b"x" * 5_000)), "purpose"),
    (form(FILE, *[(f'name="f{n}"', b"") for n in range(20)]), None),
    (form(FILE, PURPOSE, end=b""), None),
    (form(("x", b""), FILE, PURPOSE), None),
    (b"nothing of the kind", None),
    (b"", None),
    (b"--B\r\n" + b"x" * 10_000, None),
]


def test_a_bad_form_is_400_and_leaves_nothing(
    client: httpx.Client, settings: Settings, db: Database, subtests: pytest.Subtests
) -> None:
    for body, param in BAD_FORMS:
        with subtests.test(body=repr(body)[:60], param=repr(param)[:60]):
            assert error(post_form(client, body), 400)["param"] == param
            assert_nothing_is_left(client, settings, db)


def assert_nothing_is_left(client: httpx.Client, settings: Settings, db: Database) -> None:
    assert client.get("/v1/files").json()["data"] == []
    assert blobs(settings) == []
    assert db.run(lambda tx: tx.conn.execute(text("select count(*) from intents")).scalar_one()) == 0


def test_a_body_that_is_no_form_is_refused(client: httpx.Client) -> None:
    error(client.post("/v1/files", json={"purpose": "batch"}), 415)
    error(client.post("/v1/files", content=b"", headers={"content-type": "multipart/form-data"}), 400)
    compressed = {"content-type": "multipart/form-data; boundary=B", "content-encoding": "br"}
    error(client.post("/v1/files", content=form(FILE, PURPOSE), headers=compressed), 415)


def test_a_file_over_the_limit_is_413_and_leaves_nothing(
    client: httpx.Client, settings: Settings, db: Database
) -> None:
    def endless() -> Any:
        yield b'--B\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(settings.max_file_bytes // 65_536 + 1):
            yield b"x" * 65_536

    headers = {"content-type": "multipart/form-data; boundary=B"}
    assert error(client.post("/v1/files", content=endless(), headers=headers), 413)["param"] == "file"
    assert_nothing_is_left(client, settings, db)


def raw(url: str, head: str, body: bytes = b"") -> socket.socket:
    """Send a request by hand, so that it can be cut or stay unfinished."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(f"{head}host: x\r\nauthorization: Bearer {KEY}\r\n\r\n".encode() + body)
    return connection


def test_a_declared_length_over_the_limit_is_413_before_a_byte_of_it_is_read(url: str) -> None:
    head = "POST /v1/files HTTP/1.1\r\ncontent-type: multipart/form-data; boundary=B\r\ncontent-length: 99999999999\r\n"
    with raw(url, head) as connection:
        assert connection.recv(1_000).startswith(b"HTTP/1.1 413")


def test_a_cut_upload_leaves_nothing(client: httpx.Client, url: str, settings: Settings, db: Database) -> None:
    head = "POST /v1/files HTTP/1.1\r\ncontent-type: multipart/form-data; boundary=B\r\ncontent-length: 7000000\r\n"
    with raw(url, head, form(('name="file"; filename="f"', b"x" * 6_000_000), end=b"")):
        wait_until(lambda: blobs(settings) != [])
    wait_until(lambda: blobs(settings) == [])
    wait_until(lambda: db.run(lambda tx: tx.conn.execute(text("select count(*) from intents")).scalar_one()) == 0)
    assert_nothing_is_left(client, settings, db)


def wait_until(true: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_a_file_that_a_validating_batch_reads_is_not_deleted(client: httpx.Client, settings: Settings) -> None:
    file = upload(client)["id"]
    batch = create(client, file)["id"]
    refused = client.delete(f"/v1/files/{file}")
    assert error(refused, 409)["code"] == "file_in_use"
    assert refused.headers["x-should-retry"] == "false"
    client.post(f"/v1/batches/{batch}/cancel")
    assert client.delete(f"/v1/files/{file}").status_code == 200
    assert blobs(settings) == []
    error(client.delete(f"/v1/files/{file}"), 404)
    error(client.get(f"/v1/files/{file}/content"), 404)


def test_a_blob_that_went_missing_is_an_error_and_not_a_cut_answer(client: httpx.Client, settings: Settings) -> None:
    file = upload(client)["id"]
    for blob in blobs(settings):
        blob.unlink()
    assert error(content(client, file), 500)["code"] == "internal_error"


def test_a_page_goes_on_after_any_file_and_an_unknown_one_is_404(client: httpx.Client) -> None:
    made = [upload(client)["id"] for _ in range(3)]
    page = client.get("/v1/files", params={"limit": 2}).json()
    assert [one["id"] for one in page["data"]] == [made[2], made[1]]
    assert (page["first_id"], page["last_id"], page["has_more"]) == (made[2], made[1], True)
    rest = client.get("/v1/files", params={"after": made[1]}).json()
    assert [one["id"] for one in rest["data"]] == [made[0]]
    assert error(client.get("/v1/files", params={"after": "file-none"}), 404)["param"] == "after"


@pytest.mark.parametrize("purpose", ["user_data", "vision", "evals", "fine-tune", "assistants"])
def test_files_of_other_purposes_are_kept_and_read_and_no_batch_is_made_of_them(
    client: httpx.Client, purpose: str
) -> None:
    data = b"\xff\xd8 no text at all \0"
    sent = client.post("/v1/files", files={"file": ("a.jpg", data)}, data={"purpose": purpose})
    assert sent.status_code == 200, sent.text
    file = sent.json()
    assert (file["purpose"], file["bytes"], file["expires_at"]) == (purpose, len(data), None)
    assert client.get(f"/v1/files/{file['id']}/content").content == data
    assert [one["id"] for one in client.get("/v1/files", params={"purpose": purpose}).json()["data"]] == [file["id"]]
    for path in ("/v1/batches", "/v1/batches/estimate"):
        refused = error(client.post(path, json=batch_of(file["id"])), 400)
        assert refused["message"] == f"The file's purpose must be 'batch', not '{purpose}'."
    assert client.delete(f"/v1/files/{file['id']}").json()["deleted"]


def test_a_file_of_another_purpose_may_have_an_end_and_come_in_parts(client: httpx.Client) -> None:
    new = {"filename": "a.jpg", "purpose": "vision", "bytes": 0, "mime_type": "image/jpeg"}
    for expires, seconds in (({}, None), ({"expires_after": {"anchor": "created_at", "seconds": 3_600}}, 3_600)):
        upload = client.post("/v1/uploads", json=new | expires).json()["id"]
        file = client.post(f"/v1/uploads/{upload}/complete", json={"part_ids": []}).json()["file"]
        assert file["purpose"] == "vision"
        assert file["expires_at"] == (seconds and file["created_at"] + seconds)
    fields = {"purpose": "vision", "expires_after[anchor]": "created_at", "expires_after[seconds]": "7200"}
    file = client.post("/v1/files", files={"file": ("a.jpg", b"x")}, data=fields).json()
    assert file["expires_at"] == file["created_at"] + 7_200


LINES = b'{"custom_id": "1"}\n' * 20_000


def _forms(file: bytes) -> Iterator[bytes]:
    """A form with the purpose before the file, and one with it behind."""
    parts = [
        b'content-disposition: form-data; name="purpose"\r\n\r\nbatch',
        b'content-disposition: form-data; name="file"; filename="in.jsonl.gz"\r\n\r\n' + file,
    ]
    for ordered in (parts, parts[::-1]):
        yield b"".join(b"--B\r\n" + part + b"\r\n" for part in ordered) + b"--B--\r\n"


def test_a_batchs_gzip_is_kept_inflated(client: httpx.Client) -> None:
    for form in _forms(gzip.compress(LINES[:100]) + gzip.compress(LINES[100:])):
        kind = {"content-type": "multipart/form-data; boundary=B"}
        file = client.post("/v1/files", content=form, headers=kind).json()
        assert (file["bytes"], file["filename"]) == (len(LINES), "in.jsonl")
        assert client.get(f"/v1/files/{file['id']}/content").content == LINES


def test_gzip_that_is_broken_or_cut_is_refused_and_leaves_nothing(client: httpx.Client) -> None:
    packed = gzip.compress(LINES)
    for broken in (packed[:-3], packed[:50] + b"x" + packed[51:], packed + b"more"):
        answer = client.post("/v1/files", files={"file": ("a.gz", broken)}, data={"purpose": "batch"})
        assert error(answer, 400)["code"] == "invalid_gzip"
    assert client.get("/v1/files").json()["data"] == []


def test_what_gzip_stands_for_counts_against_the_limit(settings: Settings) -> None:
    small = settings.model_copy(update={"max_file_bytes": 1_000_000})
    with serving(small) as url, http(url) as client:
        bomb = {"file": ("a.gz", gzip.compress(bytes(2_000_000)))}
        error(client.post("/v1/files", files=bomb, data={"purpose": "batch"}), 413)
        kept = client.post("/v1/files", files=bomb, data={"purpose": "user_data"})
        assert kept.json()["bytes"] == len(bomb["file"][1]), "another purpose's is kept as it is"
        packed = gzip.compress(next(_forms(b"{}" * 1_000_000)))
        head = {"content-type": "multipart/form-data; boundary=B", "content-encoding": "gzip"}
        error(client.post("/v1/files", content=packed, headers=head), 413)


def test_a_body_with_gzip_as_its_content_encoding_is_inflated(client: httpx.Client) -> None:
    head = {"content-type": "multipart/form-data; boundary=B", "content-encoding": "gzip"}
    file = client.post("/v1/files", content=gzip.compress(next(_forms(LINES))), headers=head).json()
    assert file["bytes"] == len(LINES)
    error(client.post("/v1/files", content=next(_forms(LINES)), headers=head), 400)


def test_a_download_has_its_name_in_both_forms(client: httpx.Client) -> None:
    for name, plain in (("in.jsonl", "in.jsonl"), ("ü%b.jsonl", "__b.jsonl")):
        file = upload(client, b"{}\n", name)
        told = client.get(f"/v1/files/{file['id']}/content").headers["content-disposition"]
        assert told.startswith(f'attachment; filename="{plain}"; filename*=UTF-8'), told


@pytest.mark.parametrize("coding", ["gzip", "identity"])
def test_head_of_a_download_is_its_head_and_reads_none_of_it(
    client: httpx.Client, settings: Settings, coding: str
) -> None:
    file = upload(client, b"x" * 5_000)["id"]
    path, headers = f"/v1/files/{file}/content", {"accept-encoding": coding}
    whole = client.get(path, headers=headers)
    for blob in blobs(settings):
        blob.unlink()
    head = client.head(path, headers=headers)
    assert (head.status_code, head.content) == (200, b"")
    told = [{name: value for name, value in one.headers.items() if name not in IN_TURN} for one in (whole, head)]
    assert told[0] == told[1]
    assert ("content-length" in head.headers) == (coding == "identity")
    part = client.head(path, headers=headers | {"range": "bytes=0-9"})
    assert (part.status_code, part.headers.get("content-range")) == (200, None)
    assert client.head(path, headers={"if-none-match": head.headers["etag"]}).status_code == 304
    assert client.head("/v1/files/file-none/content").status_code == 404


IN_TURN = ("date", "x-request-id", "transfer-encoding")
"""Headers that are another answer's each time, or say how bytes come."""
