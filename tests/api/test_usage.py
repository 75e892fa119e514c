"""Usage has OpenAI's shape, under its path and ours."""

from __future__ import annotations

import time

import httpx
from api.live import arrive, batch_of, chat, error, http, settle_one, upload
from sqlalchemy import text

from penstock.service.admin import keys
from penstock.service.core.transaction import Database
from penstock.settings import Settings


def test_usage_of_nothing_is_empty_buckets_in_pages(client: httpx.Client) -> None:
    start = int(time.time()) // 3_600 * 3_600 - 5 * 3_600
    asked: dict[str, str | int] = {"start_time": start, "bucket_width": "1h", "limit": 4, "group_by": "model"}
    for path in ("/v1/usage", "/v1/organization/usage/completions"):
        page = client.get(path, params=asked).json()
        assert (page["object"], page["has_more"], page["next_page"]) == ("page", True, str(start + 4 * 3_600))
        assert [bucket["start_time"] for bucket in page["data"]] == [start + n * 3_600 for n in range(4)]
        assert page["data"][0] == {
            "object": "bucket", "start_time": start, "end_time": start + 3_600, "results": [],
        }  # fmt: skip
        rest = client.get(path, params=asked | {"page": page["next_page"]}).json()
        assert (len(rest["data"]), rest["has_more"], rest["next_page"]) == (2, False, None)


def test_what_can_not_be_asked_is_refused(client: httpx.Client) -> None:
    for asked in (
        {}, {"start_time": -1}, {"start_time": 0, "limit": 32}, {"start_time": 0, "limit": 0},
        {"start_time": 0, "bucket_width": "1m"}, {"start_time": 0, "group_by": "colour"},
        {"start_time": 0, "group_by": ["lane", "key"]},
        {"start_time": 0, "page": "x"}, {"start_time": 10**18},
    ):  # fmt: skip
        assert client.get("/v1/usage", params=asked).status_code == 400, asked
    error(client.get("/v1/usage", params={"start_time": 0, "models": ["false"]}), 404)
    assert httpx.get(f"{client.base_url}/v1/usage", params={"start_time": 0}, trust_env=False).status_code == 401


def test_an_operator_sees_a_tenants_usage_as_the_tenant_does(client: httpx.Client) -> None:
    start = int(time.time()) // 86_400 * 86_400
    asked: dict[str, str | int] = {"start_time": start, "limit": 2, "group_by": "model"}
    of_default = client.get("/v1/admin/tenants/default/usage", params=asked)
    assert of_default.json() == client.get("/v1/usage", params=asked).json()
    error(client.get("/v1/admin/tenants/nobody/usage", params=asked), 404)
    error(client.get("/v1/admin/tenants/default/usage", params=asked | {"limit": 32}), 400)


def _answer(number: int, _: str) -> tuple[int, bytes]:
    return (200, b'{"usage":{"prompt_tokens":7}}') if number == 1 else (400, b"{}")


def test_what_a_key_makes_counts_for_it_and_in_its_lane(
    url: str, client: httpx.Client, db: Database, settings: Settings, model: str
) -> None:
    id, key = db.run(keys.create, "default", "nightly")
    large = {"model": model, "requests": [{"body": chat("x" * 1_000)} for _ in range(20)], "lane": "flex"}
    with http(url, key) as nightly:
        two = {"model": model, "requests": [{"body": chat()}, {"body": chat()}], "lane": "priority"}
        job = nightly.post("/v1/jobs", json=two).json()["id"]
        once = {"idempotency-key": "once"}
        nightly.post("/v1/jobs", json={"model": model, "body": chat()}, headers=once).raise_for_status()
        nightly.post("/v1/jobs", json=large).raise_for_status()
        nightly.post("/v1/batches", json=batch_of(upload(nightly)["id"])).raise_for_status()
        settle_one(db, settings, arrive(db, settings, "gpu", model), _answer)
        client.post(f"/v1/jobs/{job}/retry", json={}).raise_for_status()
        assert nightly.post("/v1/jobs/retry", json={"ids": [job]}).json()["data"][0]["outcome"] == "done"
    made = db.run(lambda tx: tx.conn.execute(text("select id, api_key from batches")).all())
    by_key = [row.api_key for row in made]
    assert (by_key.count(id), len(by_key), by_key.count(None)) == (5, 6, 0), "a retry counts for who asked for it"
    today: dict[str, str | int | list[str]] = {"start_time": int(time.time()) // 86_400 * 86_400}
    told = client.get("/v1/usage", params=today | {"group_by": ["lane", "api_key_id", "batch"]}).json()
    [one] = told["data"][-1]["results"]
    assert (one["lane"], one["api_key_id"], one["api_key_name"], one["batch"]) == ("priority", id, "nightly", True)
    assert (one["num_model_requests"], one["input_tokens"]) == (1, 7)
    [whole] = client.get("/v1/usage", params=today).json()["data"][-1]["results"]
    assert whole == one | {"lane": None, "api_key_id": None, "api_key_name": None, "batch": None}
