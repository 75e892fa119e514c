"""The audit: each act leaves one row, with who did it and by which request, and no content."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
from api.live import KEY, chat, create, error, http, upload
from sqlalchemy import text

from penstock.domain.api_errors import PenstockError
from penstock.service.admin import keys, sweep
from penstock.service.core import audit
from penstock.service.core.transaction import Database, Transaction
from penstock.settings import Settings

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5"


def rows(client: httpx.Client, **params: Any) -> list[dict[str, Any]]:
    """The newest rows of the audit."""
    answer = client.get("/v1/admin/audit", params={"limit": 100} | params)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def test_every_act_leaves_its_row_and_says_who_did_it(url: str, client: httpx.Client, model: str) -> None:
    made = client.post("/v1/admin/api_keys", json={"name": "a private name", "tenant": "acme"}).json()
    with http(url, made["value"]) as acme:
        acts: list[tuple[str, str, httpx.Response]] = []

        def act(action: str, target: str, answer: httpx.Response) -> Any:
            assert answer.status_code == 200, answer.text
            acts.append((action, target or answer.json()["id"], answer))
            return answer.json()

        body = {"url": "https://93.184.215.14/hook?token=private", "secret": SECRET}
        endpoint = act("webhook_endpoint.created", "", acme.post("/v1/webhook_endpoints", json=body))["id"]
        at = f"/v1/webhook_endpoints/{endpoint}"
        act("webhook_endpoint.updated", endpoint, acme.post(at, json={"name": "private"}))
        act("webhook_endpoint.secret_rotated", endpoint, acme.post(f"{at}/rotate"))
        act("webhook_endpoint.secret_rotated", endpoint, acme.post(f"{at}/rotate_secret"))
        act("webhook_endpoint.deleted", endpoint, acme.delete(at))
        job = acme.post("/v1/jobs", json={"model": model, "body": chat("a private prompt")}).json()["id"]
        act("job.paused", job, acme.post(f"/v1/jobs/{job}/pause"))
        act("job.resumed", job, acme.post(f"/v1/jobs/{job}/resume"))
        act("job.updated", job, acme.patch(f"/v1/jobs/{job}", json={"lane": "flex", "metadata": {"a": "private"}}))
        act("job.cancelled", job, acme.post(f"/v1/jobs/{job}/cancel"))
        file = upload(acme, b"private", "private.jsonl")["id"]
        batch = create(acme, file)["id"]
        act("batch.cancelled", batch, acme.post(f"/v1/batches/{batch}/cancel"))
        act("file.deleted", file, acme.delete(f"/v1/files/{file}"))
    found = rows(client, tenant="acme")
    told = [(row["action"], row["target"], row["request_id"]) for row in reversed(found)][2:]
    assert told == [(action, target, answer.headers["x-request-id"]) for action, target, answer in acts]
    assert {row["actor"]["id"] for row in found[:-2]} == {made["id"]}
    operator = keys_by_name(client)["bootstrap"]
    assert [(row["action"], row["actor"]["id"]) for row in reversed(found[-2:])] == [
        ("tenant.created", operator),
        ("api_key.created", operator),
    ]
    [moved] = [row for row in found if row["action"] == "job.updated"]
    assert moved["details"] == {"lane": "flex", "metadata": True}
    everything = str(rows(client))
    for secret in ("private", SECRET, KEY, made["value"], "93.184"):
        assert secret not in everything


def keys_by_name(client: httpx.Client) -> dict[str, str]:
    """Ids of keys by their names."""
    return {one["name"]: one["id"] for one in client.get("/v1/admin/api_keys").json()["data"]}


def test_what_an_operator_does_is_there_too(client: httpx.Client) -> None:
    client.post("/v1/admin/tenants", json={"name": "acme"})
    client.post("/v1/admin/tenants/acme", json={"weight": 2})
    client.post("/v1/admin/tenants/acme", json={"cache": True})
    made = client.post("/v1/admin/api_keys", json={"name": "a", "tenant": "acme", "models": ["m"]}).json()
    new = client.post(f"/v1/admin/api_keys/{made['id']}/rotate", json={"overlap_seconds": 60}).json()
    client.delete(f"/v1/admin/api_keys/{new['id']}")
    told = [(row["action"], row["target"], row["details"]) for row in reversed(rows(client, tenant="acme"))]
    scopes = ["batches", "files", "inference", "webhooks"]
    assert told == [
        ("tenant.created", "acme", {}),
        ("tenant.updated", "acme", {"weight": 2.0}),
        ("tenant.updated", "acme", {"cache": True}),
        ("api_key.created", made["id"], {"role": "tenant", "scopes": scopes, "models": 1}),
        ("api_key.rotated", made["id"], {"new": new["id"], "overlap_seconds": 60.0}),
        ("api_key.revoked", new["id"], {}),
    ]


def test_what_is_refused_or_changes_nothing_leaves_no_row(client: httpx.Client, model: str) -> None:
    job = client.post("/v1/jobs", json={"model": model, "body": chat()}).json()["id"]
    for _ in range(2):
        client.post(f"/v1/jobs/{job}/pause")
    for _ in range(2):
        client.post(f"/v1/jobs/{job}/cancel")
    error(client.delete("/v1/files/none"), 404)
    error(client.delete("/v1/webhook_endpoints/none"), 404)
    error(client.post("/v1/webhook_endpoints/none", json={"name": "x"}), 404)
    error(client.post("/v1/admin/tenants/none", json={"weight": 2}), 404)
    error(client.post("/v1/admin/tenants/default", json={"weight": -1}), 400)
    told = [row["action"] for row in reversed(rows(client)) if row["actor"]["type"] == "api_key"]
    assert told == ["job.paused", "job.cancelled"]


def test_an_act_that_is_rolled_back_left_no_row(db: Database) -> None:
    def half(tx: Transaction) -> None:
        keys.create(tx, "acme", "half")
        raise PenstockError

    with pytest.raises(PenstockError):
        db.run(half)
    assert db.run(audit.page, limit=10) == []


def test_the_audit_has_pages_and_filters(client: httpx.Client, db: Database) -> None:
    for n in range(5):
        client.post("/v1/admin/tenants", json={"name": f"t{n}"})
    found: list[dict[str, Any]] = []
    more = True
    while more:
        params = {"limit": 2, "action": "tenant.created"} | ({"after": found[-1]["id"]} if found else {})
        page = client.get("/v1/admin/audit", params=params).json()
        found += page["data"]
        more = page["has_more"]
    assert [row["target"] for row in found] == ["t4", "t3", "t2", "t1", "t0", "default"]
    assert found[-1]["actor"] == {"type": "platform", "id": None}, "the first tenant, at the start"
    db.run(lambda tx: tx.conn.execute(text("update audit set at = at - interval '1 hour' where target < 't3'")))
    since = found[0]["effective_at"] - 60
    assert [row["target"] for row in rows(client, since=since, action="tenant.created")] == ["t4", "t3"]
    assert rows(client, tenant="none") == []
    assert error(client.get("/v1/admin/audit", params={"after": "audit_x"}), 400)["param"] == "after"


def test_old_rows_are_swept(db: Database, settings: Settings) -> None:
    db.run(keys.create, "old", "a")
    db.run(lambda tx: tx.conn.execute(text("update audit set at = at - interval '2 days'")))
    db.run(keys.create, "new", "a")
    swept = settings.model_copy(update={"audit_seconds": timedelta(days=1).total_seconds()})
    assert db.run(sweep.old_audit, swept) == 2
    assert db.run(sweep.old_audit, swept) == 0
    assert {row.tenant for row in db.run(audit.page, limit=10)} == {"new"}
