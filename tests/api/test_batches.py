"""Batches: created, listed, looked at and cancelled."""

from __future__ import annotations

import json

import httpx
import pytest
import redis
from api.live import CHAT, arrive, batch_of, create, error, upload
from sqlalchemy import text

from penstock.service.core.transaction import Database
from penstock.settings import Settings
from penstock.store.batches import batches


def test_a_created_batch_is_hinted_to_the_io_workers(client: httpx.Client, redis_url: str) -> None:
    batch = create(client, upload(client)["id"])["id"]
    with redis.Redis.from_url(redis_url) as there:
        message = there.blpop(["io.validate"], timeout=10)
    assert message is not None
    assert batch in json.loads(message[1])["headers"]["kwargsrepr"]


NO_IO_WORKER = {
    "reason": "no_io_worker",
    "models": [],
    "message": "No io worker is live",
    "lane": None,
    "tokens": None,
    "seconds": None,
}
WINDOWS = ["24h", "30d", "90m"]


def test_a_window_sets_the_deadline(client: httpx.Client, subtests: pytest.Subtests) -> None:
    for window in WINDOWS:
        with subtests.test(window=repr(window)[:60]):
            batch = create(client, upload(client)["id"], completion_window=window)
            seconds = {"24h": 86_400, "30d": 30 * 86_400, "90m": 5_400}[window]
            assert batch["expires_at"] - batch["created_at"] in (seconds, seconds - 1)  # both are rounded down


def test_the_lane_is_standard_unless_told_otherwise(client: httpx.Client) -> None:
    file = upload(client)["id"]
    assert create(client, file)["lane"] == "standard"
    assert create(client, file, lane="priority")["lane"] == "priority"


def test_a_batch_fails_over_a_bad_line_unless_it_says_that_those_are_skipped(client: httpx.Client) -> None:
    """What is done about them: tests/service/test_skipped_lines.py."""
    file = upload(client)["id"]
    assert create(client, file)["on_invalid"] == "fail"
    batch = create(client, file, on_invalid="skip")
    assert batch["on_invalid"] == client.get(f"/v1/batches/{batch['id']}").json()["on_invalid"] == "skip"


def test_a_batch_may_say_what_lines_ask_that_name_no_model(client: httpx.Client, db: Database) -> None:
    """What comes of it: tests/service/test_validate.py."""
    batch = create(client, upload(client)["id"], model="later")["id"]
    found = db.run(lambda tx: batches.find(tx.conn, batch))
    assert found is not None
    assert (found.default_model, found.model) == ("later", None)


WRONG_FIELDS = [
    ({"input_file_id": "file-none"}, "input_file_id"),
    ({"input_file_id": None}, "input_file_id"),
    ({"endpoint": "/v1/moderations"}, "endpoint"),
    ({"endpoint": 7}, "endpoint"),
    ({"completion_window": "31d"}, "completion_window"),
    ({"completion_window": "soon"}, "completion_window"),
    ({"completion_window": 24}, "completion_window"),
    ({"lane": "realtime"}, "lane"),
    ({"metadata": {"k" * 65: "v"}}, "metadata"),
    ({"metadata": {"k": "v" * 513}}, "metadata"),
    ({"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
    ({"metadata": {"k": 1}}, "metadata"),
    ({"metadata": ["k"]}, "metadata"),
    ({"output_expires_after": {"anchor": "created_at", "seconds": 3_599}}, "output_expires_after"),
    ({"output_expires_after": {"anchor": "created_at", "seconds": 2_592_001}}, "output_expires_after"),
    ({"output_expires_after": {"anchor": "now", "seconds": 3_600}}, "output_expires_after"),
    ({"model": ""}, "model"),
    ({"model": "m" * 201}, "model"),
    ({"on_invalid": "ignore"}, "on_invalid"),
    ({"on_invalid": None}, "on_invalid"),
    ({"colour": "red"}, "colour"),
]


def test_a_wrong_field_is_named(client: httpx.Client, subtests: pytest.Subtests) -> None:
    for change, param in WRONG_FIELDS:
        with subtests.test(change=repr(change)[:60], param=repr(param)[:60]):
            asked = batch_of(upload(client)["id"]) | change
            assert error(client.post("/v1/batches", json=asked), 400)["param"].startswith(param)
            assert client.get("/v1/batches").json()["data"] == []


def test_metadata_up_to_its_limits_comes_back_as_it_went(client: httpx.Client) -> None:
    metadata = {f"{n:02}" + "k" * 62: "é" * 512 for n in range(16)}
    assert create(client, upload(client)["id"], metadata=metadata)["metadata"] == metadata


def test_a_file_that_has_expired_or_was_produced_is_no_input(client: httpx.Client, db: Database) -> None:
    produced, expired = upload(client)["id"], upload(client)["id"]
    db.run(
        lambda tx: tx.conn.execute(text("update files set purpose = 'batch_output' where id = :id"), {"id": produced})
    )
    db.run(lambda tx: tx.conn.execute(text("update files set expires_at = now() where id = :id"), {"id": expired}))
    for file in (produced, expired):
        assert error(client.post("/v1/batches", json=batch_of(file)), 400)["param"] == "input_file_id"
    error(client.get(f"/v1/files/{expired}"), 404)


def test_cancelling_what_ended_otherwise_is_409_and_not_to_be_retried(client: httpx.Client, db: Database) -> None:
    batch = create(client, upload(client)["id"])["id"]
    db.run(lambda tx: tx.conn.execute(text("update batches set state = 'failed', finish_as = 'failed'")))
    refused = client.post(f"/v1/batches/{batch}/cancel")
    error(refused, 409)
    assert refused.headers["x-should-retry"] == "false"


def test_a_paused_batch_is_in_progress_to_openais_clients(client: httpx.Client, db: Database) -> None:
    batch = create(client, upload(client)["id"])["id"]
    for state in ("in_progress", "paused"):
        db.run(lambda tx, state=state: tx.conn.execute(text("update batches set state = :state"), {"state": state}))
    assert client.get(f"/v1/batches/{batch}").json()["status"] == "in_progress"


def test_a_batch_that_nobody_validates_says_so(client: httpx.Client, db: Database, settings: Settings) -> None:
    batch = create(client, upload(client)["id"])["id"]
    assert client.get(f"/v1/batches/{batch}").json()["waiting"] == NO_IO_WORKER
    arrive(db, settings, "io")
    assert client.get(f"/v1/batches/{batch}").json()["waiting"] is None


def test_a_long_poll_of_an_ended_batch_answers_at_once(client: httpx.Client) -> None:
    batch = create(client, upload(client)["id"])["id"]
    client.post(f"/v1/batches/{batch}/cancel")
    answer = client.get(f"/v1/batches/{batch}", params={"wait": 20})
    assert answer.elapsed.total_seconds() < 5
    assert answer.json()["status"] == "cancelled"


def test_a_long_poll_ends_with_its_time(client: httpx.Client) -> None:
    batch = create(client, upload(client)["id"])["id"]
    answer = client.get(f"/v1/batches/{batch}", params={"wait": 0.2})
    assert answer.json()["status"] == "validating"
    assert answer.elapsed.total_seconds() < 5


WRONG_WAITS = ["-1", "nan", "inf", "soon", ""]


def test_a_wait_that_is_no_time_is_400(client: httpx.Client, subtests: pytest.Subtests) -> None:
    for wait in WRONG_WAITS:
        with subtests.test(wait=repr(wait)[:60]):
            batch = create(client, upload(client)["id"])["id"]
            assert error(client.get(f"/v1/batches/{batch}", params={"wait": wait}), 400)["param"] == "wait"


def test_jobs_and_batches_do_not_appear_among_each_other(client: httpx.Client, model: str) -> None:
    batch = create(client, upload(client)["id"])["id"]
    job = client.post("/v1/jobs", json={"model": model, "endpoint": CHAT, "body": {"messages": []}}).json()["id"]
    assert [one["id"] for one in client.get("/v1/batches").json()["data"]] == [batch]
    assert [one["id"] for one in client.get("/v1/jobs").json()["data"]] == [job]
    error(client.get(f"/v1/batches/{job}"), 404)
    error(client.get(f"/v1/jobs/{batch}"), 404)
    error(client.post(f"/v1/batches/{job}/cancel"), 404)
    error(client.get("/v1/batches", params={"after": job}), 404)


@pytest.mark.parametrize(
    ("name", "endpoint"), [("/score", "/v1/score"), ("/rerank", "/v1/rerank"), ("/v2/rerank", "/v1/rerank")]
)
def test_a_create_may_name_its_endpoint_as_vllms_run_batch_does(client: httpx.Client, name: str, endpoint: str) -> None:
    assert create(client, upload(client)["id"], endpoint=name)["endpoint"] == endpoint
