"""Keys for some models only: what they ask of others is refused wherever a model is named."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from api.live import CHAT, arrive, batch_of, chat, error, http, upload

from penstock.service.admin import keys, models
from penstock.service.core.transaction import Database
from penstock.settings import Settings
from penstock.store.batches import batches


@pytest.fixture
def narrow(url: str, db: Database, settings: Settings, model: str) -> Iterator[httpx.Client]:
    """A client whose key is for `tiny` only, where `secret` is known too."""
    db.run(models.add, "secret")
    arrive(db, settings, "gpu", "secret")
    _, key = db.run(keys.create, "default", "narrow", models=frozenset({model}))
    with http(url, key) as one:
        yield one


def refused(answer: httpx.Response, param: str = "model") -> None:
    """The answer names the rule."""
    told = error(answer, 403)
    assert (told["code"], told["param"], told["type"]) == ("model_not_allowed", param, "permission_error")


def test_only_its_models_are_listed(narrow: httpx.Client, client: httpx.Client) -> None:
    assert [one["id"] for one in narrow.get("/v1/models").json()["data"]] == ["tiny"]
    assert [one["id"] for one in client.get("/v1/models").json()["data"]] == ["secret", "tiny"]
    assert narrow.get("/v1/models/tiny").status_code == 200
    for name in ("secret", "none"):
        refused(narrow.get(f"/v1/models/{name}"))


@pytest.mark.parametrize("name", ["secret", "none"])
def test_waiting_calls_of_other_models_are_refused_known_or_not(narrow: httpx.Client, name: str) -> None:
    refused(narrow.post(CHAT, json=chat() | {"model": name}))
    refused(narrow.post("/tokenize", json={"model": name, "prompt": "x"}))


def test_jobs_and_estimates_of_other_models_are_refused(narrow: httpx.Client) -> None:
    assert narrow.post("/v1/jobs", json={"model": "tiny", "body": chat()}).status_code == 200
    refused(narrow.post("/v1/jobs", json={"model": "secret", "body": chat()}))
    mixed = [{"body": chat()}, {"body": chat() | {"model": "secret"}}]
    refused(narrow.post("/v1/jobs", json={"model": "tiny", "requests": mixed}), "requests[1].model")
    refused(narrow.post("/v1/batches/estimate", json={"model": "secret", "body": chat()}), "body.model")
    line = {"custom_id": "a", "method": "POST", "url": CHAT, "body": chat() | {"model": "secret"}}
    file = upload(narrow, json.dumps(line).encode())["id"]
    refused(narrow.post("/v1/batches/estimate", json=batch_of(file)), "body.model")
    based_on = narrow.post("/v1/batches/estimate", json=batch_of(file) | {"on_invalid": "skip"}).json()["based_on"]
    assert (based_on["bad_lines"], based_on["first_error"]["code"]) == (1, "model_not_allowed")
    assert narrow.get("/v1/jobs").json()["data"][0]["model"] == "tiny"
    assert len(narrow.get("/v1/jobs").json()["data"]) == 1


def test_a_batch_and_a_large_job_carry_what_their_makers_key_may_ask(
    narrow: httpx.Client, client: httpx.Client, db: Database
) -> None:
    """Validation refuses their lines: tests/service/test_validate.py."""
    file = upload(narrow)["id"]
    large = {"model": "secret", "requests": [{"body": chat("x" * 1_000)} for _ in range(20)]}
    made = {
        narrow.post("/v1/batches", json=batch_of(file)).json()["id"]: ["tiny"],
        narrow.post("/v1/jobs", json=large).json()["id"]: ["tiny"],
        client.post("/v1/batches", json=batch_of(file)).json()["id"]: None,
    }
    for id, allowed in made.items():
        found = db.run(lambda tx, id=id: batches.find(tx.conn, id))
        assert found is not None
        assert found.allowed_models == allowed


def test_a_retry_may_ask_what_its_own_makers_key_may(narrow: httpx.Client, client: httpx.Client, db: Database) -> None:
    job = client.post("/v1/jobs", json={"model": "secret", "body": chat()}).json()["id"]
    client.post(f"/v1/jobs/{job}/cancel")
    retry = narrow.post(f"/v1/jobs/{job}/retry", json={}).json()["id"]
    found = db.run(lambda tx: batches.find(tx.conn, retry))
    assert found is not None
    assert found.allowed_models == ["tiny"]


def test_who_asks_a_model_that_is_gone_is_told_only_of_those_that_its_key_may_ask(
    url: str, db: Database, settings: Settings, model: str
) -> None:
    db.run(models.add, "secret")
    _, key = db.run(keys.create, "default", "two", models=frozenset({model, "gone"}))
    with http(url, key) as two:
        answers = [
            two.post("/v1/jobs", json={"model": "gone", "body": chat()}),
            two.post(CHAT, json=chat() | {"model": "gone"}),
        ]
        for answer in answers:
            assert "There are: tiny (GET /v1/models)" in error(answer, 404)["message"]
        based_on = two.post("/v1/batches/estimate", json={"model": "gone", "body": chat()}).json()["based_on"]
    assert "There are: tiny (GET" in based_on["first_error"]["message"]
