"""OpenAI's Uploads API: parts in any order become one file, once, within an hour and the tenant's limits."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from api import contract, live
from api.live import KEY, batch_of, error, http, serving

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import Unavailable
from penstock.service.admin import limits, sweep
from penstock.service.core.transaction import Database
from penstock.settings import Settings

LINE = b'{"custom_id": "a"}\n'


def begin(client: httpx.Client, size: int, **more: Any) -> dict[str, Any]:
    new = {"filename": "in.jsonl", "purpose": "batch", "bytes": size, "mime_type": "application/jsonl"}
    answer = client.post("/v1/uploads", json=new | more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def add(client: httpx.Client, upload: str, data: bytes) -> httpx.Response:
    return client.post(f"/v1/uploads/{upload}/parts", files={"data": ("part", data)})


def added(client: httpx.Client, upload: str, *parts: bytes) -> list[str]:
    answers = [add(client, upload, data) for data in parts]
    assert {answer.status_code for answer in answers} == {200}
    return [answer.json()["id"] for answer in answers]


def complete(client: httpx.Client, upload: str, parts: list[str], **more: Any) -> httpx.Response:
    return client.post(f"/v1/uploads/{upload}/complete", json={"part_ids": parts} | more)


def blobs(settings: Settings) -> list[Path]:
    root = Path(settings.blob_url.removeprefix("file://"))
    return [path for path in root.rglob("*") if path.is_file()]


def swept(db: Database, settings: Settings) -> dict[str, int]:
    return sweep.once(db, Blobs(settings.blob_url), settings)


def test_parts_in_any_order_become_one_file_that_a_batch_can_use(client: httpx.Client) -> None:
    data = LINE * 1_000
    upload = begin(client, len(data), expires_after={"anchor": "created_at", "seconds": 7_200})
    contract.check("Upload", upload)
    assert contract.properties("Upload") <= set(upload)
    assert (upload["status"], upload["file"]) == ("pending", None)
    assert upload["expires_at"] == upload["created_at"] + 3_600
    [last] = added(client, upload["id"], data[10_000:])
    part = add(client, upload["id"], data[:10_000])
    contract.check("UploadPart", part.json())
    [_sent_twice] = added(client, upload["id"], data[:10_000])
    done = complete(client, upload["id"], [part.json()["id"], last], md5=hashlib.md5(data).hexdigest().upper()).json()
    contract.check("Upload", done)
    contract.check("OpenAIFile", done["file"])
    assert done["status"] == "completed"
    file = done["file"]
    assert (file["bytes"], file["purpose"], file["filename"]) == (len(data), "batch", "in.jsonl")
    assert file["expires_at"] == file["created_at"] + 7_200
    assert client.get(f"/v1/files/{file['id']}/content").content == data
    assert client.post("/v1/batches", json=batch_of(file["id"])).status_code == 200
    assert client.get(f"/v1/uploads/{upload['id']}").json() == done


def test_the_sdks_chunked_upload_works_from_memory_and_from_disk(url: str, tmp_path: Path) -> None:
    data = LINE * 5_000
    (tmp_path / "in.jsonl").write_bytes(data)
    with live.sdk(url, max_retries=0) as sdk:
        for given in (
            {"file": tmp_path / "in.jsonl"},
            {"file": data, "filename": "in.jsonl", "bytes": len(data), "md5": hashlib.md5(data).hexdigest()},
        ):
            done = sdk.uploads.upload_file_chunked(
                **given, mime_type="application/jsonl", purpose="batch", part_size=20_000
            )
            assert done.status == "completed"
            assert done.file is not None
            assert sdk.files.content(done.file.id).content == data
        other = sdk.uploads.create(bytes=1, filename="x", mime_type="x", purpose="batch")
        assert sdk.uploads.cancel(other.id).status == "cancelled"


def test_a_complete_that_is_repeated_is_one_file(client: httpx.Client, settings: Settings, db: Database) -> None:
    data = LINE * 20_000
    upload = begin(client, len(data))["id"]
    parts = added(client, upload, data[:100_000], data[100_000:])
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: complete(client, upload, parts), range(6)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["file"]["id"] for answer in answers}) == 1
    assert complete(client, upload, parts).json() == answers[0].json()
    error(complete(client, upload, parts[::-1]), 409)
    assert len(client.get("/v1/files").json()["data"]) == 1
    swept(db, settings)
    assert [path.stat().st_size for path in blobs(settings)] == [len(data)], "parts are gone, and all other copies"
    client.delete(f"/v1/files/{answers[0].json()['file']['id']}")
    again = complete(client, upload, parts).json()
    assert (again["status"], again["file"]) == ("completed", None)


def test_bytes_and_md5_must_fit_and_the_upload_waits_if_they_do_not(client: httpx.Client, settings: Settings) -> None:
    upload = begin(client, 8)["id"]
    parts = added(client, upload, b"1234", b"5678", b"90")
    foreign = added(client, begin(client, 4)["id"], b"1234")
    for wrong, code in (
        (parts[:1], "bytes_mismatch"),
        (parts, "bytes_mismatch"),
        ([parts[0], parts[0]], "invalid_request"),
        ([parts[0], *foreign], "invalid_request"),
        ([parts[0], "part_none"], "invalid_request"),
    ):
        refused = error(complete(client, upload, wrong), 400)
        assert (refused["param"], refused["code"]) == ("part_ids", code)
    assert error(complete(client, upload, parts[:2], md5="0" * 32), 400)["code"] == "md5_mismatch"
    assert error(complete(client, upload, parts[:2], md5="no"), 400)["param"] == "md5"
    assert len(blobs(settings)) == 4, "nothing is left of what was put together"
    whole = complete(client, upload, parts[:2], md5=hashlib.md5(b"12345678").hexdigest())
    assert whole.json()["status"] == "completed"


def test_an_empty_file_needs_no_part(client: httpx.Client) -> None:
    upload = begin(client, 0)["id"]
    done = complete(client, upload, []).json()
    assert done["file"]["bytes"] == 0
    assert complete(client, upload, []).json() == done


def test_a_cancelled_upload_takes_no_part_and_its_parts_go(
    client: httpx.Client, settings: Settings, db: Database
) -> None:
    upload = begin(client, 4)["id"]
    parts = added(client, upload, b"1234")
    cancelled = client.post(f"/v1/uploads/{upload}/cancel").json()
    contract.check("Upload", cancelled)
    assert cancelled["status"] == "cancelled"
    assert client.post(f"/v1/uploads/{upload}/cancel").json() == cancelled
    assert error(add(client, upload, b"1234"), 409)["message"].startswith("The upload is cancelled")
    error(complete(client, upload, parts), 409)
    assert swept(db, settings)["doomed_blobs"] == 1
    assert blobs(settings) == []
    done = begin(client, 0)["id"]
    complete(client, done, [])
    error(client.post(f"/v1/uploads/{done}/cancel"), 409)


def late(db: Database, how: str) -> None:
    """All uploads are past their end by so long."""
    db.run(lambda tx: tx.conn.exec_driver_sql(f"update uploads set expires_at = now() - interval '{how}'"))


def test_an_upload_that_nobody_completes_expires_and_its_parts_are_swept(
    client: httpx.Client, settings: Settings, db: Database
) -> None:
    upload = begin(client, 4)["id"]
    parts = added(client, upload, b"1234")
    late(db, "1 s")
    assert client.get(f"/v1/uploads/{upload}").json()["status"] == "expired"
    for refused in (
        add(client, upload, b"1234"),
        complete(client, upload, parts),
        client.post(f"/v1/uploads/{upload}/cancel"),
    ):
        assert "expired" in error(refused, 409)["message"]
    assert swept(db, settings) == {}, "whoever completes it at this moment has a while"
    late(db, "11 minutes")
    assert swept(db, settings) == {"expired_uploads": 1, "doomed_blobs": 1}
    assert blobs(settings) == []
    assert client.get(f"/v1/uploads/{upload}").json()["status"] == "expired"


def test_what_has_ended_is_forgotten_after_a_day(client: httpx.Client, settings: Settings, db: Database) -> None:
    ended, pending = begin(client, 0)["id"], begin(client, 0)["id"]
    complete(client, ended, [])
    with pytest.raises(Exception, match=f"upload {ended} is completed"):
        late(db, "2 days")  # the database holds that an ended one never changes
    db.run(lambda tx: tx.conn.exec_driver_sql("alter table uploads disable trigger user"))
    late(db, "2 days")
    assert swept(db, settings)["expired_uploads"] >= 1
    assert [client.get(f"/v1/uploads/{id}").status_code for id in (ended, pending)] == [404, 404]


def test_a_complete_that_began_in_time_ends_well_though_it_is_late(
    client: httpx.Client, settings: Settings, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = begin(client, 4)["id"]
    parts = added(client, upload, b"1234")
    monkeypatch.setattr("penstock.service.intake.resumable_upload.failpoint", lambda name: late(db, "1 s"))
    assert complete(client, upload, parts).json()["status"] == "completed"


def test_a_cancel_while_the_parts_are_put_together_wins(
    client: httpx.Client, settings: Settings, db: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = begin(client, 4)["id"]
    parts = added(client, upload, b"1234")
    with ThreadPoolExecutor(1) as pool:

        def cancel(name: str) -> None:
            db.run(lambda tx: tx.conn.exec_driver_sql(f"update uploads set state = 'cancelled' where id = '{upload}'"))

        monkeypatch.setattr("penstock.service.intake.resumable_upload.failpoint", cancel)
        refused = pool.submit(complete, client, upload, parts).result()
    assert "cancelled" in error(refused, 409)["message"]
    assert client.get("/v1/files").json()["data"] == []
    assert len(blobs(settings)) == 1, "the part; what was put together is gone"


def test_another_tenant_finds_no_upload_and_can_use_none_of_its_parts(
    client: httpx.Client, stranger: httpx.Client
) -> None:
    upload = begin(client, 4)["id"]
    parts = added(client, upload, b"1234")
    error(stranger.get(f"/v1/uploads/{upload}"), 404)
    error(add(stranger, upload, b"1234"), 404)
    error(complete(stranger, upload, parts), 404)
    error(stranger.post(f"/v1/uploads/{upload}/cancel"), 404)
    assert error(complete(stranger, begin(stranger, 4)["id"], parts), 400)["param"] == "part_ids"
    assert complete(client, upload, parts).status_code == 200


def test_an_idempotency_key_begins_one_upload(client: httpx.Client) -> None:
    new = {"filename": "in.jsonl", "purpose": "batch", "bytes": 3, "mime_type": "x"}

    def post(size: int = 3) -> httpx.Response:
        return client.post("/v1/uploads", json=new | {"bytes": size}, headers={"idempotency-key": "k"})

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: post(), range(8)))
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert error(post(4), 409)["code"] == "idempotency_key_reused"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"filename": None}, "filename"),
        ({"filename": ""}, "filename"),
        ({"purpose": "batch_output"}, "purpose"),
        ({"bytes": -1}, "bytes"),
        ({"bytes": "4"}, "bytes"),
        ({"bytes": 2**60}, "bytes"),
        ({"mime_type": None}, "mime_type"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after.seconds"),
        ({"more": 1}, "more"),
    ],
)
def test_an_odd_create_is_told_what_is_wrong(client: httpx.Client, change: dict[str, Any], param: str) -> None:
    new = {"filename": "in.jsonl", "purpose": "batch", "bytes": 4, "mime_type": "x"} | change
    asked = {name: value for name, value in new.items() if value is not None}
    assert error(client.post("/v1/uploads", json=asked), 400)["param"] in (param, None)


def test_odd_parts_are_refused_and_leave_nothing(client: httpx.Client, settings: Settings) -> None:
    upload = begin(client, 4)["id"]
    where = f"/v1/uploads/{upload}/parts"
    assert error(client.post(where, files={"file": ("x", b"1")}), 400)["param"] in ("data", "file")
    more = client.post(where, files={"data": ("x", b"1")}, data={"more": "1"})
    assert error(more, 400)["code"] == "unknown_parameter"
    assert error(add(client, upload, b"12345"), 413)["param"] == "data"
    assert error(client.post(where, json={}), 415)
    assert blobs(settings) == []


def test_a_part_that_says_it_is_too_large_is_refused_before_it_comes(client: httpx.Client, url: str) -> None:
    upload = begin(client, 8 * 2**20)["id"]
    with closing(HTTPConnection(url.removeprefix("http://"))) as connection:
        connection.putrequest("POST", f"/v1/uploads/{upload}/parts")
        connection.putheader("authorization", f"Bearer {KEY}")
        connection.putheader("content-type", "multipart/form-data; boundary=x")
        connection.putheader("content-length", str(65 * 2**20))
        connection.endheaders()
        assert connection.getresponse().status == 413


def test_a_file_larger_than_the_limit_is_refused_before_it_comes(client: httpx.Client, settings: Settings) -> None:
    new = {"filename": "in.jsonl", "purpose": "batch", "bytes": settings.max_file_bytes + 1, "mime_type": "x"}
    assert error(client.post("/v1/uploads", json=new), 413)["param"] == "bytes"


def test_limits_count_uploads_as_files_and_their_parts_as_bytes(settings: Settings, db: Database) -> None:
    with serving(settings.model_copy(update={"key_cache_seconds": 0.0})) as url, http(url) as client:

        def used() -> tuple[int, int]:
            found = {one["name"]: one["used"] for one in client.get("/v1/limits").json()["data"]}
            return found["files"], found["stored_bytes"]

        db.run(limits.change, "default", {"files": 1, "stored_bytes": 6}, None)
        new = {"filename": "f", "purpose": "batch", "bytes": 7, "mime_type": "x"}
        assert "stored_bytes" in error(client.post("/v1/uploads", json=new), 429)["message"]
        upload = begin(client, 4)["id"]
        assert "files" in error(client.post("/v1/uploads", json=new | {"bytes": 1}), 429)["message"]
        parts = added(client, upload, b"1234")
        assert used() == (1, 4)
        assert "stored_bytes" in error(add(client, upload, b"123"), 429)["message"]
        parts_again = added(client, upload, b"56")
        assert used() == (1, 6)
        db.run(limits.change, "default", {"upload_bytes_at_once": 3}, None)
        assert "upload_bytes_at_once" in error(complete(client, upload, parts), 429)["message"]
        assert "stored_bytes" in error(add(client, upload, b"1"), 429)["message"]
        db.run(limits.change, "default", {"upload_bytes_at_once": 4}, None)
        assert complete(client, upload, parts).status_code == 200, "the file takes the place of its parts"
        assert used() == (1, 4)
        assert parts_again


def test_an_api_whose_store_fails_midway_leaves_the_parts_and_the_complete_may_be_repeated(
    client: httpx.Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = begin(client, 4)["id"]
    parts = added(client, upload, b"12", b"34")

    def away(name: str) -> None:
        raise Unavailable

    with monkeypatch.context() as patched:
        patched.setattr("penstock.service.intake.resumable_upload.failpoint", away)
        error(complete(client, upload, parts), 503)
    assert complete(client, upload, parts).json()["file"]["bytes"] == 4
