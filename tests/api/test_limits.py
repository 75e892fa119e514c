"""What an operator allows a tenant or a key, met over HTTP: refused by name, told by /v1/limits, in force soon."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from api.live import CHAT, batch_of, error, http, serving, upload
from e2e.live import until

from penstock.domain.api_errors import BadRequest, NotFound
from penstock.domain.limits.limit import LimitName
from penstock.service.admin import keys, limits
from penstock.service.control import budgets
from penstock.service.core.transaction import Database
from penstock.service.intake import small_job_intake
from penstock.settings import Settings

JOB = {"endpoint": CHAT, "model": "tiny", "body": {"messages": [{"role": "user", "content": "hello"}]}}


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Nothing is remembered, so that what is set is in force at once."""
    monkeypatch.setattr(small_job_intake, "_FRESH_SECONDS", -1.0)
    return settings.model_copy(update={"key_cache_seconds": 0.0})


def told(client: httpx.Client, name: str, scope: str = "tenant") -> dict[str, Any]:
    """What /v1/limits says of one."""
    answer = client.get("/v1/limits")
    assert answer.status_code == 200, answer.text
    return next(one for one in answer.json()["data"] if (one["name"], one["scope"]) == (name, scope))


def given(db: Database, key: str | None = None, tenant: str = "default", **limit: int | None) -> None:
    """Set limits."""
    db.run(limits.change, tenant, limit, key)


def key_of(db: Database, tenant: str = "default") -> tuple[str, str]:
    return db.run(keys.create, tenant, "test")


def test_every_limit_is_told_with_its_default_and_its_use(client: httpx.Client, model: str) -> None:
    upload(client)
    found = {one["name"]: one for one in client.get("/v1/limits").json()["data"]}
    assert found.keys() == set(LimitName)
    assert found["requests_per_minute"]["limit"] is None
    assert found["files"]["used"] == 1
    assert found["stored_bytes"]["used"] == 3
    assert all(one["limit"] > 0 for one in found.values() if one["kind"] != "rate"), "what is kept is finite"
    assert client.get("/v1/limits").json()["budget"] is None


def test_requests_a_minute_are_refused_with_name_use_and_time_and_told_in_headers(
    client: httpx.Client, db: Database
) -> None:
    given(db, requests_per_minute=20)
    answers = [client.get("/v1/models") for _ in range(30)]
    passed = [one for one in answers if one.status_code == 200]
    assert 19 <= len(passed) <= 22
    assert passed[0].headers["x-ratelimit-limit-requests"] == "20"
    assert int(passed[-1].headers["x-ratelimit-remaining-requests"]) <= 1
    assert passed[-1].headers["x-ratelimit-reset-requests"]
    refused = answers[-1]
    found = error(refused, 429)
    assert "requests_per_minute of your tenant is 20" in found["message"]
    assert (found["type"], found["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert 1 <= int(refused.headers["retry-after"]) <= 9
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    given(db, requests_per_minute=None)
    until(lambda: client.get("/v1/models").status_code == 200, "its requests pass again", 10)
    assert "x-ratelimit-limit-requests" not in client.get("/v1/models").headers


def test_a_key_has_a_rate_of_its_own_and_the_tenants_other_keys_do_not_pay(
    client: httpx.Client, url: str, db: Database
) -> None:
    id, key = key_of(db)
    given(db, id, requests_per_minute=5)
    with http(url, key) as slow:
        found = [slow.get("/v1/models").status_code for _ in range(10)]
        assert found[:5] == [200] * 5
        assert found[-1] == 429
    assert {client.get("/v1/models").status_code for _ in range(20)} == {200}


def test_health_and_refused_keys_pay_no_rate(client: httpx.Client, url: str, db: Database) -> None:
    given(db, requests_per_minute=0)
    assert client.get("/v1/models").status_code == 429
    assert httpx.get(f"{url}/health/ready", trust_env=False).status_code == 200
    with http(url, "sk-penstock-wrong") as wrong:
        assert wrong.get("/v1/models").status_code == 401


def test_open_batches_and_queued_lines_and_tokens_are_limits(client: httpx.Client, db: Database, model: str) -> None:
    given(db, open_batches=2)
    assert client.post("/v1/jobs", json=JOB).status_code == 200
    file = upload(client)["id"]
    assert client.post("/v1/batches", json=batch_of(file)).status_code == 200
    for refused in (client.post("/v1/jobs", json=JOB), client.post("/v1/batches", json=batch_of(file))):
        assert "open_batches of your tenant is 2" in error(refused, 429)["message"]
        assert refused.headers["retry-after"]
    given(db, open_batches=None, queued_lines=2)
    three = JOB | {"requests": [{"body": JOB["body"]}] * 3}
    del three["body"]
    assert "queued_lines" in error(client.post("/v1/jobs", json=three), 429)["message"]
    assert client.post("/v1/jobs", json=JOB).status_code == 200
    given(db, queued_lines=None, queued_tokens=1)
    assert error(client.post("/v1/jobs", json=JOB), 429)["code"] == "token_limit_exceeded"


def test_what_is_open_returns_when_it_ends(client: httpx.Client, db: Database, model: str) -> None:
    given(db, open_batches=1)
    job = client.post("/v1/jobs", json=JOB).json()["id"]
    assert told(client, "open_batches")["used"] == 1
    assert told(client, "queued_tokens")["used"] > 0
    assert client.post(f"/v1/jobs/{job}/cancel").status_code == 200
    assert [told(client, name)["used"] for name in ("open_batches", "queued_lines", "queued_tokens")] == [0, 0, 0]
    assert client.post("/v1/jobs", json=JOB).status_code == 200


def test_files_and_bytes_are_limits_however_many_come_at_once(client: httpx.Client, db: Database, url: str) -> None:
    given(db, files=5)
    found: list[int] = []

    def one() -> None:
        with http(url) as mine:
            files = {"file": ("in.jsonl", b"{}\n")}
            found.append(mine.post("/v1/files", files=files, data={"purpose": "batch"}).status_code)

    threads = [threading.Thread(target=one) for _ in range(15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [200] * 5 + [429] * 10
    assert told(client, "files") | {"remaining": 0, "used": 5} == told(client, "files")
    given(db, files=None, stored_bytes=1_000)
    refused = client.post("/v1/files", files={"file": ("in.jsonl", bytes(2_000))}, data={"purpose": "batch"})
    found_error = error(refused, 429)
    assert found_error["code"] == "limit_exceeded"
    assert "stored_bytes of your tenant is 1000" in found_error["message"]
    assert told(client, "stored_bytes")["used"] == 15, "what was refused is not kept"


def test_a_large_upload_meets_the_limit_of_bytes_at_once(client: httpx.Client, db: Database) -> None:
    given(db, upload_bytes_at_once=100_000)
    refused = client.post("/v1/files", files={"file": ("in.jsonl", bytes(300_000))}, data={"purpose": "batch"})
    assert "upload_bytes_at_once" in error(refused, 429)["message"]
    upload(client, bytes(90_000))
    assert told(client, "upload_bytes_at_once")["used"] == 0


def test_waits_and_estimates_are_limits_of_now(client: httpx.Client, db: Database, url: str, model: str) -> None:
    given(db, waits_at_once=1, estimates_at_once=0)
    job = client.post("/v1/jobs", json=JOB).json()["id"]
    with http(url) as other:
        waiting = threading.Thread(target=lambda: other.get(f"/v1/jobs/{job}?wait=3"))
        waiting.start()
        until(lambda: told(client, "waits_at_once")["used"] == 1, "it waits")
        assert "waits_at_once" in error(client.get(f"/v1/jobs/{job}?wait=1"), 429)["message"]
        waiting.join()
    assert client.get(f"/v1/jobs/{job}?wait=0.1").status_code == 200
    assert "estimates_at_once" in error(client.post("/v1/batches/estimate", json=JOB), 429)["message"]


def test_webhook_endpoints_and_keys_are_limits(client: httpx.Client, db: Database) -> None:
    given(db, webhook_endpoints=0, api_keys=2)
    refused = client.post("/v1/webhook_endpoints", json={"url": "https://1.1.1.1/hook"})
    assert "webhook_endpoints of your tenant is 0" in error(refused, 429)["message"]
    asked = {"name": "more", "tenant": "default"}
    made = [client.post("/v1/admin/api_keys", json=asked) for _ in range(2)]
    assert [one.status_code for one in made] == [200, 429]
    rotate = f"/v1/admin/api_keys/{made[0].json()['id']}/rotate"
    assert client.post(rotate).status_code == 429, "for a day they would be one more"
    assert client.post(rotate, json={"overlap_seconds": 0}).status_code == 200


def test_what_is_no_limit_is_refused(db: Database, url: str) -> None:
    for wrong in ({"speed": 3}, {"files": -1}, {"files": 2**60}):
        with pytest.raises(BadRequest):
            db.run(limits.change, "default", wrong)
    with pytest.raises(NotFound):
        db.run(limits.change, "nobody", {"files": 1})
    id, _ = key_of(db)
    with pytest.raises(BadRequest):
        db.run(limits.change, "default", {"files": 1}, id)
    with pytest.raises(NotFound):
        db.run(limits.change, "other", {"requests_per_minute": 1}, id)


@pytest.fixture
def two(settings: Settings) -> Iterator[tuple[str, str]]:
    """Two API processes' worth over one database and one Redis."""
    with serving(settings) as first, serving(settings) as second:
        yield first, second


def test_a_rate_holds_over_all_processes(two: tuple[str, str], db: Database) -> None:
    given(db, requests_per_minute=100)
    found = []
    for url in two:
        with http(url) as client:
            found += [client.get("/v1/models").status_code for _ in range(120)]
    assert 95 <= found.count(200) <= 100 + 2 * 2 + 10


def test_a_spent_budget_refuses_new_work_and_says_so(client: httpx.Client, db: Database, model: str) -> None:
    db.run(budgets.set_budget, "default", "0")
    refused = client.post("/v1/jobs", json=JOB)
    assert error(refused, 400)["code"] == "model_without_price"
    db.run(budgets.look, "default")
    file = upload(client)["id"]
    for refused in (
        client.post("/v1/jobs", json=JOB),
        client.post("/v1/batches", json=batch_of(file)),
        client.post(CHAT, json=JOB["body"] | {"model": "tiny"}),
    ):
        found = error(refused, 429)
        assert (found["type"], found["code"]) == ("insufficient_quota", "insufficient_quota")
        assert refused.headers["x-should-retry"] == "false"
    assert client.get("/v1/limits").json()["budget"]["state"] == "spent"
    db.run(budgets.set_budget, "default", None)
    assert client.post("/v1/jobs", json=JOB).status_code == 200


def test_an_operator_sees_every_limit_of_a_tenant_with_its_default_and_what_is_used(
    url: str, client: httpx.Client, db: Database
) -> None:
    _, key = key_of(db, "acme")
    client.post("/v1/admin/tenants/acme/limits", json={"files": 7, "monthly_budget": "12.50"})
    answer = client.get("/v1/admin/tenants/acme/limits/used").json()
    found = {one["name"]: one for one in answer["data"]}
    assert found.keys() == set(LimitName)
    assert (found["files"]["default"], found["files"]["given"], found["files"]["used"]) == (1_000_000, 7, 0)
    assert (found["api_keys"]["given"], found["api_keys"]["used"]) == (None, 1)
    assert (found["requests_per_minute"]["of_keys"], found["files"]["of_keys"]) == (True, False)
    assert found["requests_per_minute"]["used"] is None, "rates are counted elsewhere"
    assert (answer["budget"]["limit"], answer["budget"]["state"]) == ("12.5", "open")
    error(client.get("/v1/admin/tenants/nobody/limits/used"), 404)
    with http(url, key) as one:
        error(one.get("/v1/admin/tenants/acme/limits/used"), 403)


def test_an_operator_sets_limits_over_http_and_the_audit_says_so(client: httpx.Client, db: Database) -> None:
    id, _ = key_of(db, "acme")
    path = "/v1/admin/tenants/acme/limits"
    assert client.get(path).json() == {"object": "limits", "limits": {}, "monthly_budget": None}
    made = client.post(path, json={"files": 7, "requests_per_minute": 60, "monthly_budget": "12.50"})
    assert made.json() == {
        "object": "limits",
        "limits": {"files": 7, "requests_per_minute": 60},
        "monthly_budget": "12.5",
    }
    assert client.post(path, json={"files": None}).json() == client.get(path).json()
    assert client.get(path).json()["limits"] == {"requests_per_minute": 60}
    assert client.post(path, json={"monthly_budget": None}).json()["monthly_budget"] is None
    of_key = f"/v1/admin/api_keys/{id}/limits"
    assert client.post(of_key, json={"calls_at_once": 3}).json()["limits"] == {"calls_at_once": 3}
    assert client.get(of_key).json()["limits"] == {"calls_at_once": 3}
    for wrong in ({"speed": 1}, {"files": -1}, {"files": "7"}, {"monthly_budget": "ten"}, {"monthly_budget": 10}):
        error(client.post(path, json=wrong), 400)
    error(client.post(of_key, json={"files": 1}), 400)
    error(client.post("/v1/admin/tenants/nobody/limits", json={"files": 1}), 404)
    error(client.get("/v1/admin/api_keys/key_none/limits"), 404)
    found = client.get("/v1/admin/audit", params={"tenant": "acme", "action": "limits.updated"}).json()["data"]
    assert [one["target"] for one in found] == [id, "acme", "acme"]
