"""Batches and jobs are paused, resumed and changed over HTTP, and say when they are expected to be done."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
from api import contract, live
from api.live import CHAT, arrive, chat, completion, create, error, settle_one, upload
from sqlalchemy import text

from penstock.service.core.transaction import Database
from penstock.settings import Settings


@pytest.fixture
def job(client: httpx.Client, model: str) -> str:
    """The path of an inline job in progress."""
    return f"/v1/jobs/{client.post('/v1/jobs', json={'model': model, 'body': chat()}).json()['id']}"


@pytest.fixture
def batch(client: httpx.Client) -> str:
    """The path of a batch that is being validated."""
    return f"/v1/batches/{create(client, upload(client)['id'])['id']}"


def ok(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_paused_job_is_in_progress_to_openais_clients_and_says_that_it_is_paused(
    client: httpx.Client, job: str
) -> None:
    assert ok(client.get(job))["paused"] is False
    for _ in range(2):
        paused = ok(client.post(f"{job}/pause"))
        assert (paused["status"], paused["paused"], paused["waiting"]["reason"]) == ("in_progress", True, "paused")
        assert paused["expected"]["reason"] == "paused"
    for _ in range(2):
        resumed = ok(client.post(f"{job}/resume"))
        assert (resumed["status"], resumed["paused"]) == ("in_progress", False)
        assert resumed["waiting"]["reason"] == "no_worker"


def test_a_batch_that_was_paused_has_every_field_of_the_schema(client: httpx.Client, batch: str, db: Database) -> None:
    db.run(lambda tx: tx.conn.execute(text("update batches set state = 'in_progress'")))
    for answer in (client.post(f"{batch}/pause"), client.patch(batch, json={"lane": "flex"}), client.get(batch)):
        contract.check("Batch", ok(answer))
        assert (answer.json()["status"], answer.json()["paused"]) == ("in_progress", True)
    contract.check("ListBatchesResponse", ok(client.get("/v1/batches")))


def test_what_is_being_validated_is_changed_but_not_paused(client: httpx.Client, batch: str) -> None:
    for what in ("pause", "resume"):
        refused = client.post(f"{batch}/{what}")
        assert "being validated" in error(refused, 409)["message"]
        assert refused.headers["x-should-retry"] == "false"
    changed = ok(client.patch(batch, json={"lane": "priority", "completion_window": "2h", "metadata": {"a": "b"}}))
    assert (changed["lane"], changed["completion_window"], changed["metadata"]) == ("priority", "2h", {"a": "b"})
    assert changed["expires_at"] - changed["created_at"] in (7_200, 7_199)
    assert ok(client.patch(batch, json={}))["metadata"] == {"a": "b"}
    assert ok(client.patch(batch, json={"metadata": {}, "lane": None}))["metadata"] is None
    assert ok(client.get(batch))["lane"] == "priority"


def test_what_has_ended_is_steered_no_more(client: httpx.Client, batch: str) -> None:
    client.post(f"{batch}/cancel")
    for refused in (
        client.post(f"{batch}/pause"),
        client.post(f"{batch}/resume"),
        client.patch(batch, json={"lane": "flex"}),
    ):
        error(refused, 409)
        assert refused.headers["x-should-retry"] == "false"


def test_nobody_steers_what_is_anothers_or_of_another_kind(
    client: httpx.Client, stranger: httpx.Client, batch: str, job: str
) -> None:
    wrong = [path.replace("/batches/", "/jobs/") for path in (batch,)] + [job.replace("/jobs/", "/batches/")]
    for who, paths in ((stranger, [batch, job]), (client, wrong)):
        for path in paths:
            error(who.post(f"{path}/pause"), 404)
            error(who.post(f"{path}/resume"), 404)
            error(who.patch(path, json={"lane": "flex"}), 404)
    assert ok(client.get(job))["paused"] is False
    assert ok(client.get(batch))["lane"] == "standard"


WRONG_CHANGES = [
    ({"lane": "realtime"}, "lane"),
    ({"lane": 1}, "lane"),
    ({"completion_window": "soon"}, "completion_window"),
    ({"completion_window": "31d"}, "completion_window"),
    ({"completion_window": "1m\0"}, "completion_window"),
    ({"metadata": {"k": "v\0"}}, "metadata"),
    ({"metadata": {"k" * 65: "v"}}, "metadata"),
    ({"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
    ({"metadata": ["k"]}, "metadata"),
    ({"endpoint": "/v1/completions"}, "endpoint"),
    ({"deadline": 7}, "deadline"),
]


def test_a_wrong_change_is_named_and_changes_nothing(
    client: httpx.Client, batch: str, job: str, subtests: pytest.Subtests
) -> None:
    before = [ok(client.get(path)) for path in (batch, job)]
    for change, param in WRONG_CHANGES:
        with subtests.test(change=repr(change)[:60]):
            for path in (batch, job):
                assert error(client.patch(path, json={"lane": "flex"} | change), 400)["param"].startswith(param)
    for body in (b"", b"[]", b"nonsense", b'"flex"', b"null"):
        error(client.patch(batch, content=body), 400)
    error(client.patch(batch, content=b'{"metadata": "' + b"x" * 300_000 + b'"}'), 413)
    assert [ok(client.get(path)) for path in (batch, job)] == before


def test_a_window_that_has_passed_is_400(client: httpx.Client, batch: str, db: Database) -> None:
    db.run(lambda tx: tx.conn.execute(text("update batches set created_at = created_at - interval '2 h'")))
    refused = error(client.patch(batch, json={"completion_window": "90m"}), 400)
    assert refused["param"] == "completion_window"
    assert "has passed" in refused["message"]


def test_metadata_chooses_the_lane_where_the_field_does_not(url: str, client: httpx.Client, model: str) -> None:
    file = upload(client)["id"]
    for note, lane in (
        ("priority", "priority"),
        ("high", "priority"),
        ("standard", "standard"),
        ("normal", "standard"),
        ("flex", "flex"),
        ("low", "flex"),
        ("P1, says the boss", "standard"),
        ("", "standard"),
    ):
        metadata = {"priority": note}
        made = create(client, file, metadata=metadata)
        assert (made["lane"], made["metadata"]) == (lane, metadata)
        assert create(client, file, metadata=metadata, lane="flex")["lane"] == "flex"
        posted = client.post("/v1/jobs", json={"model": model, "body": chat(), "metadata": metadata})
        assert ok(posted)["lane"] == lane
    with live.sdk(url) as sdk:
        made_by_sdk = sdk.batches.create(
            input_file_id=file, endpoint=CHAT, completion_window="24h", metadata={"priority": "low"}
        )
    assert ok(client.get(f"/v1/batches/{made_by_sdk.id}"))["lane"] == "flex"


def test_a_small_job_says_at_its_creation_when_it_is_expected(
    client: httpx.Client, db: Database, settings: Settings, job: str
) -> None:
    assert ok(client.get(job))["expected"] == {
        "completion_at": None,
        "earliest_at": None,
        "latest_at": None,
        "meets_deadline": None,
        "reason": "no_worker",
        "parts": [],
    }
    worker = arrive(db, settings, "gpu", "tiny")
    assert ok(client.get(job))["expected"]["reason"] == "not_measured"
    slow = "update workers set tokens_per_second = 0.001 where id = :id"
    db.run(lambda tx: tx.conn.execute(text(slow), {"id": worker.id}))
    made = ok(client.post("/v1/jobs", json={"model": "tiny", "body": chat(), "completion_window": "90m"}))
    expected = made["expected"]
    assert time.time() < expected["earliest_at"] <= expected["completion_at"] <= expected["latest_at"]
    assert (expected["meets_deadline"], expected["reason"]) == (False, None)
    assert expected["completion_at"] > made["expires_at"]
    fast = "update workers set tokens_per_second = 1000 where id = :id"
    db.run(lambda tx: tx.conn.execute(text(fast), {"id": worker.id}))
    assert ok(client.get(job))["expected"]["meets_deadline"] is True
    for listed in ok(client.get("/v1/jobs"))["data"]:
        assert listed["expected"]["meets_deadline"] is True
    settle_one(db, settings, worker, lambda number, custom_id: (200, completion("yes")))
    settle_one(db, settings, worker, lambda number, custom_id: (200, completion("yes")))
    assert ok(client.get(job))["expected"] is None
