"""Paging: a list goes on after the last object that was seen, also if that one was deleted since."""

from __future__ import annotations

import httpx
import pytest
from api import live
from api.live import arrive, chat, completion, create, error, settle_one, upload
from sqlalchemy import text

from penstock.domain.work.batch import BatchEnd, BatchState
from penstock.domain.work.holder import Holder
from penstock.service.admin import sweep
from penstock.service.core.transaction import Database
from penstock.settings import Settings
from penstock.store.batches import batches


@pytest.mark.parametrize("order", ["desc", "asc"])
def test_who_deletes_files_while_paging_through_them_meets_each(url: str, client: httpx.Client, order: str) -> None:
    made = [upload(client)["id"] for _ in range(7)]
    with live.sdk(url, max_retries=0) as sdk:
        met = []
        for file in sdk.files.list(limit=2, order=order):  # type: ignore[arg-type]
            sdk.files.delete(file.id)
            met.append(file.id)
    assert met == (made if order == "asc" else made[::-1])
    assert client.get("/v1/files").json()["data"] == []


@pytest.mark.parametrize("kind", ["batches", "jobs", "webhook_endpoints"])
def test_so_does_who_deletes_what_else_can_be_deleted(
    client: httpx.Client, db: Database, settings: Settings, model: str, kind: str
) -> None:
    worker = arrive(db, settings, "gpu", model)
    made = [_make(client, db, settings, worker, kind) for _ in range(5)]
    met: list[str] = []
    after: dict[str, str] = {}
    while page := client.get(f"/v1/{kind}", params={"limit": 2} | after).json()["data"]:
        for one in page:
            assert client.delete(f"/v1/{kind}/{one['id']}").status_code == 200
        met += [one["id"] for one in page]
        after = {"after": page[-1]["id"]}
    assert met == made[::-1]


def _make(client: httpx.Client, db: Database, settings: Settings, worker: Holder, kind: str) -> str:
    if kind == "webhook_endpoints":
        asked = {"name": "x", "url": "https://93.184.215.14/hook", "event_types": ["batch.completed"]}
        return str(client.post("/v1/webhook_endpoints", json=asked).json()["id"])
    if kind == "jobs":
        id = client.post("/v1/jobs", json={"model": worker.model, "body": chat()}).json()["id"]
        settle_one(db, settings, worker, lambda number, custom_id: (200, completion("yes")))
        return str(id)
    id = create(client, upload(client)["id"])["id"]
    db.run(lambda tx: batches.close(tx.conn, id, BatchState.FAILED))
    db.run(lambda tx: batches.end(tx.conn, {id: f"evt_{id}"}, BatchEnd(BatchState.FAILED)))
    return str(id)


def test_a_place_is_its_tenants_and_its_lists_own_and_is_kept_for_a_day(
    client: httpx.Client, stranger: httpx.Client, db: Database, settings: Settings
) -> None:
    kept, gone = upload(client)["id"], upload(client)["id"]
    assert client.delete(f"/v1/files/{gone}").status_code == 200

    def listed(who: httpx.Client, route: str = "files") -> httpx.Response:
        return who.get(f"/v1/{route}", params={"after": gone})

    assert [one["id"] for one in listed(client).json()["data"]] == [kept]
    for route in ("batches", "jobs", "webhook_endpoints", "webhook_deliveries"):
        assert error(listed(client, route), 404)["param"] == "after"
    error(listed(stranger), 404)
    with db.engine.begin() as conn:
        conn.execute(text("update gone set gone_at = gone_at - interval '23 hours'"))
    assert db.run(sweep.old_places, settings) == 0
    assert listed(client).status_code == 200
    with db.engine.begin() as conn:
        conn.execute(text("update gone set gone_at = gone_at - interval '2 hours'"))
    assert db.run(sweep.old_places, settings) == 1
    error(listed(client), 404)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["files", "batches"])
def test_the_sdk_meets_each_of_1000_once_while_every_fourth_is_deleted(
    url: str, client: httpx.Client, db: Database, settings: Settings, kind: str
) -> None:
    first = (
        upload(client)["id"]
        if kind == "files"
        else _make(client, db, settings, arrive(db, settings, "gpu", "tiny"), kind)
    )
    with db.engine.begin() as conn:  # a copy is a millisecond younger than the one before
        conn.execute(text(_COPIES[kind]), {"id": first})
    with live.sdk(url) as sdk:
        listed = sdk.files.list(limit=100) if kind == "files" else sdk.batches.list(limit=100)
        met = []
        for number, one in enumerate(listed):
            met.append(one.id)
            if number % 4 == 3:  # the last one of a page is what the next one begins after
                assert client.delete(f"/v1/{kind}/{one.id}").status_code == 200
    assert met == [*(f"{first}-{n}" for n in range(1_000, 0, -1)), first]


_COPIES = {
    "files": """
        insert into files select (jsonb_populate_record(f, jsonb_build_object(
            'id', f.id || '-' || n, 'blob_key', f.blob_key || n,
            'created_at', f.created_at + n * interval '1 millisecond'))).*
        from files f, generate_series(1, 1000) n where id = :id""",
    "batches": """
        insert into batches select (jsonb_populate_record(b, jsonb_build_object(
            'id', b.id || '-' || n, 'created_at', b.created_at + n * interval '1 millisecond'))).*
        from batches b, generate_series(1, 1000) n where id = :id""",
}
