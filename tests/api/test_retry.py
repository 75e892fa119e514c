"""Retries over HTTP: made, linked to their parents, refused in clear words, and closed to other tenants."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from api import contract
from api.live import arrive, chat, completion, create, error, settle_one, upload

from penstock.service.core.transaction import Database
from penstock.settings import Settings


@pytest.fixture
def job(client: httpx.Client, db: Database, settings: Settings, model: str) -> str:
    """A job of four requests that has ended, the second and the fourth refused."""
    worker = arrive(db, settings, "gpu", model)
    asked = {"model": model, "requests": [{"body": chat(f"{n}")} for n in range(4)], "metadata": {"a": "b"}}
    made = client.post("/v1/jobs", json=asked).json()["id"]
    settle_one(db, settings, worker, lambda n, _: (400, b"{}") if n in (2, 4) else (200, completion("yes")))
    return made


def test_a_retry_knows_its_parent_and_the_parent_its_retries(client: httpx.Client, job: str) -> None:
    made = client.post(f"/v1/jobs/{job}/retry", json={"set": {"max_tokens": 512}, "lane": "flex"})
    assert made.status_code == 200, made.text
    child = made.json()
    assert (child["object"], child["status"], child["lane"], child["metadata"]) == (
        "job", "validating", "flex", {"a": "b"},
    )  # fmt: skip
    assert (child["parent_batch_id"], child["children"], child["merged_output_file_id"]) == (job, [], None)
    again = client.post(f"/v1/jobs/{job}/retry").json()["id"]
    assert client.get(f"/v1/jobs/{job}").json()["children"] == [child["id"], again]
    assert client.get("/v1/jobs").json()["data"][0]["children"] is None
    assert client.post(f"/v1/jobs/{again}/cancel").json()["status"] == "cancelling"
    contract.check("Batch", child | {"object": "batch"})


def test_a_retry_twice_under_one_key_is_one(client: httpx.Client, job: str) -> None:
    headers = {"idempotency-key": "k"}
    made = [client.post(f"/v1/jobs/{job}/retry", json={}, headers=headers).json()["id"] for _ in range(2)]
    assert made[0] == made[1]
    other = client.post(f"/v1/jobs/{job}/retry", json={"lane": "flex"}, headers=headers)
    assert error(other, 409)["code"] == "idempotency_key_reused"


def test_many_are_retried_each_once_under_one_key_and_each_outcome_is_told(
    client: httpx.Client, stranger: httpx.Client, job: str
) -> None:
    open_one = client.post("/v1/jobs", json={"model": "tiny", "body": chat("open")}).json()["id"]
    asked = {"ids": [job, open_one, "none", job]}
    first, again = (client.post("/v1/jobs/retry", json=asked, headers={"idempotency-key": "many"}) for _ in range(2))
    assert first.status_code == 200, first.text
    assert first.json() == again.json()
    done, refused, missing = first.json()["data"]
    assert (done["id"], done["outcome"], done["status"], done["error"]) == (job, "done", "validating", None)
    assert client.get(f"/v1/jobs/{job}").json()["children"] == [done["retry"]]
    assert (refused["outcome"], refused["retry"], refused["error"]["code"]) == ("failed", None, "conflict")
    assert missing["outcome"] == "failed"
    chosen = {"filter": {"metadata": {"a": "b"}, "status": ["completed"]}}
    assert stranger.post("/v1/jobs/retry", json=chosen).json()["data"] == []
    assert stranger.post("/v1/jobs/retry", json=asked).json()["data"][0]["outcome"] == "failed"
    assert client.post("/v1/batches/retry", json=asked).json()["data"][0]["outcome"] == "failed", "it is a job"
    found = client.post("/v1/jobs/retry", json=chosen).json()["data"]
    assert job in [one["id"] for one in found if one["retry"]]
    for wrong in ({}, {"ids": [job], "filter": {}}, {"ids": ["x"] * 101}):
        error(client.post("/v1/jobs/retry", json=wrong), 400)


def test_nobody_repeats_another_tenants_lines(client: httpx.Client, stranger: httpx.Client, job: str) -> None:
    error(stranger.post(f"/v1/jobs/{job}/retry"), 404)
    error(client.post(f"/v1/batches/{job}/retry"), 404)


def test_what_has_not_ended_or_has_no_such_line_is_409(client: httpx.Client, job: str) -> None:
    batch = create(client, upload(client)["id"])["id"]
    refused = client.post(f"/v1/batches/{batch}/retry")
    assert error(refused, 409)["code"] == "conflict"
    assert refused.headers["x-should-retry"] == "false"
    nothing = client.post(f"/v1/jobs/{job}/retry", json={"lines": {"answered": "empty"}})
    assert error(nothing, 409)["code"] == "nothing_to_retry"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"set": {"messages": []}}, "set.messages"),
    ({"set": {"stream": True}}, "set.stream"),
    ({"set": {"model": "x"}}, "set.model"),
    ({"set": {"stop": "a\0b"}}, "set"),
    ({"set": {"stop": "x" * 70_000}}, "set"),
    ({"set": {str(n): n for n in range(33)}}, "set"),
    ({"lines": {"status_codes": [42]}}, "lines.status_codes"),
    ({"lines": {"answered": "badly"}}, "lines.answered"),
    ({"lines": {"custom_ids": []}}, "lines.custom_ids"),
    ({"lines": {"colour": "red"}}, "lines.colour"),
    ({"lane": "realtime"}, "lane"),
    ({"completion_window": "soon"}, "completion_window"),
    ({"model": ""}, "model"),
    ({"webhook": {"url": "http://169.254.169.254/"}}, "webhook.url"),
]


def test_a_wrong_field_is_named(client: httpx.Client, job: str, subtests: pytest.Subtests) -> None:
    for asked, param in WRONG:
        with subtests.test(param=param):
            assert error(client.post(f"/v1/jobs/{job}/retry", json=asked), 400)["param"].startswith(param)
    assert client.get(f"/v1/jobs/{job}").json()["children"] == []
