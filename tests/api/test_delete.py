"""Deletion: an ended batch or job goes with all that is its own, is its tenant's alone, and what it used stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import psycopg
from api.live import arrive, chat, create, error, settle_one, upload

from penstock.service.core.transaction import Database
from penstock.settings import Settings

Answer = Callable[[int, str], tuple[int, bytes]]
TABLES = ("batches", "slices", "segments", "leases", "events", "deliveries", "webhook_endpoints", "suspects")


def answered(number: int, custom_id: str) -> tuple[int, bytes]:
    return 200, b'{"usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}'


def half_refused(number: int, custom_id: str) -> tuple[int, bytes]:
    return (400, b'{"error": {"message": "no"}}') if custom_id == "b" else answered(number, custom_id)


def ended(
    client: httpx.Client, db: Database, settings: Settings, model: str, answer: Answer = answered, **more: Any
) -> str:
    """A job whose two requests ended."""
    requests = [{"custom_id": name, "body": chat()} for name in "ab"]
    id = client.post("/v1/jobs", json={"model": model, "requests": requests, **more}).json()["id"]
    settle_one(db, settings, arrive(db, settings, "gpu", model), answer)
    return str(id)


def left(database_url: str) -> dict[str, int]:
    """How many rows there are of each table that knows batches."""
    with psycopg.connect(database_url) as connection:
        counts = {name: connection.execute(f"select count(*) from {name}").fetchone() for name in TABLES}  # type: ignore[call-overload]
    return {name: row[0] for name, row in counts.items() if row and row[0]}


def test_a_job_goes_with_its_results_and_what_it_used_stays_counted(
    client: httpx.Client, db: Database, settings: Settings, model: str
) -> None:
    job = ended(client, db, settings, model, webhook={"url": "https://93.184.215.14/hook"})
    asked: dict[str, str | int] = {"start_time": 0, "group_by": "model", "bucket_width": "1d"}
    start = client.get(f"/v1/jobs/{job}").json()["created_at"] // 86_400 * 86_400
    before = client.get("/v1/usage", params=asked | {"start_time": start}).json()["data"]
    assert before[-1]["results"][0]["input_tokens"] == 14
    assert client.delete(f"/v1/jobs/{job}").json() == {"id": job, "object": "job", "deleted": True}
    error(client.get(f"/v1/jobs/{job}"), 404)
    error(client.delete(f"/v1/jobs/{job}"), 404)
    assert client.get("/v1/jobs").json()["data"] == []
    assert left(settings.database_url) == {}
    assert client.get("/v1/usage", params=asked | {"start_time": start}).json()["data"] == before
    [row] = client.get("/v1/admin/audit", params={"action": "job.deleted"}).json()["data"]
    assert (row["target"], row["actor"]["type"], row["details"]) == (job, "api_key", {"state": "completed"})


def test_one_that_has_not_ended_is_a_409_that_says_what_to_do(client: httpx.Client, model: str) -> None:
    batch = create(client, upload(client)["id"])["id"]
    job = client.post("/v1/jobs", json={"model": model, "body": chat()}).json()["id"]
    for path in (f"/v1/batches/{batch}", f"/v1/jobs/{job}"):
        refused = client.delete(path)
        assert "cancel it" in error(refused, 409)["message"]
        assert refused.headers["x-should-retry"] == "false"
        assert client.post(f"{path}/cancel").status_code == 200
        assert client.delete(path).status_code == 200, "nothing of it ran, so it has ended"
        error(client.get(path), 404)


def test_a_file_that_it_read_stays_its_tenants(client: httpx.Client) -> None:
    file = upload(client)["id"]
    batch = create(client, file)["id"]
    client.post(f"/v1/batches/{batch}/cancel")
    assert client.delete(f"/v1/batches/{batch}").status_code == 200
    assert client.get(f"/v1/files/{file}").status_code == 200


def test_nobody_else_deletes_it_nor_under_another_name(
    client: httpx.Client, stranger: httpx.Client, db: Database, settings: Settings, model: str
) -> None:
    job = ended(client, db, settings, model)
    error(stranger.delete(f"/v1/jobs/{job}"), 404)
    error(client.delete(f"/v1/batches/{job}"), 404)
    assert client.get(f"/v1/jobs/{job}").status_code == 200


def test_what_a_retry_reads_stays_until_that_is_deleted(
    client: httpx.Client, db: Database, settings: Settings, model: str
) -> None:
    job = ended(client, db, settings, model, half_refused)
    id = client.post(f"/v1/jobs/{job}/retry").json()["id"]
    assert id in error(client.delete(f"/v1/jobs/{job}"), 409)["message"]
    client.post(f"/v1/jobs/{id}/cancel")
    assert client.delete(f"/v1/jobs/{id}").status_code == 200
    assert client.delete(f"/v1/jobs/{job}").status_code == 200
    assert left(settings.database_url) == {}
