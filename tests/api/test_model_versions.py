"""`/v1/model_versions`, `/v1/model_aliases`, and calls and jobs that name them."""

from __future__ import annotations

import json
import uuid
from collections import Counter

import httpx
import pytest
from api.live import CHAT, chat, error, http, upload
from api.scripted_ingress import TOKEN, ScriptedIngress
from e2e.live import until
from pydantic import SecretStr

from penstock.domain.models.version import Definition
from penstock.domain.work.holder import Holder
from penstock.service.admin import keys
from penstock.service.core.transaction import Database
from penstock.service.lifecycle import work
from penstock.service.models import versions
from penstock.settings import Settings

ANSWER = b'{"id":"chatcmpl-1","object":"chat.completion","model":"tiny","choices":[]}'
JOBS = {"endpoint": CHAT, "body": {"messages": [{"role": "user", "content": "hello"}]}}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A quick table, and ingresses that need report only once."""
    changed = {"ingress_token": SecretStr(TOKEN), "ingress_gone_seconds": 600.0, "load_report_seconds": 0.2}
    return settings.model_copy(update=changed)


def served(db: Database, *revisions: str) -> None:
    """Workers of the model have come, each with another engine."""
    for revision in revisions:
        holder = Holder(uuid.uuid4(), "gpu", "tiny", "host", 1)
        db.run(work.register, holder, "gone", 8)
        db.run(versions.serve, holder, Definition("/models/tiny", "echo", (f"--{revision}",)), revision)


def audited(client: httpx.Client) -> list[str]:
    rows = client.get("/v1/admin/audit", params={"limit": 100}).json()["data"]
    return [row["action"] for row in rows if row["action"].startswith("model_")]


def test_an_operator_adds_promotes_rolls_back_and_retires_and_each_act_is_audited(
    client: httpx.Client, db: Database
) -> None:
    served(db, "one")
    new = {"model": "tiny", "source": "org/tiny", "engine": "vllm", "arguments": ["--api-key", "s3cret", "--seed=1"]}
    made = client.post("/v1/model_versions", json=new)
    assert made.status_code == 200, made.text
    told = made.json()
    assert (told["id"], told["state"], told["arguments"]) == ("tiny@v2", "draft", ["--api-key", "…", "--seed=1"])
    assert client.post("/v1/model_versions", json=new).json()["id"] == "tiny@v2"
    assert [one["id"] for one in client.get("/v1/model_versions", params={"model": "tiny"}).json()["data"]] == [
        "tiny@v1", "tiny@v2",
    ]  # fmt: skip
    alias = client.post("/v1/model_aliases/tiny@stable/promote", json={"version": "v2", "weight": 10}).json()
    assert alias["weights"] == {"v1": 90, "v2": 10}
    assert client.get("/v1/model_versions/tiny@v2").json()["aliases"] == {"stable": 10}
    refused = client.post("/v1/model_versions/tiny@v2/retire")
    assert error(refused, 409)["code"] == "version_in_use"
    assert client.post("/v1/model_aliases/tiny@stable/rollback").json()["weights"] == {"v1": 100}
    assert [one["weights"] for one in client.get("/v1/model_aliases/tiny@stable/history").json()["data"]] == [
        {"v1": 100}, {"v1": 90, "v2": 10}, {"v1": 100},
    ]  # fmt: skip
    canary = client.post("/v1/model_aliases", json={"model": "tiny", "alias": "canary", "weights": {"v2": 100}})
    assert canary.json()["id"] == "tiny@canary"
    assert client.delete("/v1/model_aliases/tiny@canary").json()["deleted"] is True
    assert error(client.delete("/v1/model_aliases/tiny@stable"), 409)["code"] == "conflict"
    assert client.post("/v1/model_versions/tiny@v2/repin", json={"to": "tiny"}).json() == {
        "object": "repin", "batches": 0, "slices": 0,
    }  # fmt: skip
    assert client.post("/v1/model_versions/tiny@v2/retire").json()["state"] == "retired"
    assert Counter(audited(client)) == {
        "model_version.registered": 1, "model_version.added": 1, "model_alias.changed": 3,
        "model_alias.removed": 1, "model_version.retired": 1,
    }  # fmt: skip


def test_an_alias_demands_an_eval_before_a_version_gains(client: httpx.Client, db: Database, url: str) -> None:
    served(db, "one", "two")
    scorer = {"name": "long", "type": "regex", "pattern": "...."}
    file = upload(client)["id"]
    eval = client.post("/v1/evals", json={"name": "e", "scorers": [scorer], "input_file_id": file}).json()["id"]
    path, terms = "/v1/model_aliases/tiny@stable/demand", {"eval_id": eval, "scorer": "long", "at_least": 0.8}
    assert error(client.post(path, json=terms | {"scorer": "none"}), 400)["param"] == "scorer"
    assert error(client.post(path, json=terms | {"at_least": 1.5}), 400)["param"] == "at_least"
    assert error(client.post(path, json=terms | {"eval_id": "eval_none"}), 404)["param"] == "eval_id"
    assert client.post(path, json=terms).json()["demand"] == terms
    refused = error(client.post("/v1/model_aliases/tiny@stable/promote", json={"version": "v2"}), 409)
    assert (refused["code"], f"evals run {eval} --model tiny@v2" in refused["message"]) == ("not_proven", True)
    _, key = db.run(keys.create, "stranger", "test")
    with http(url, key) as stranger:
        assert stranger.get("/v1/model_aliases/tiny@stable").json()["demand"] is None
    assert client.delete(path).json()["demand"] is None
    assert client.post("/v1/model_aliases/tiny@stable/promote", json={"version": "v2"}).json()["weights"] == {"v2": 100}


def test_what_can_not_be_is_refused_with_the_reason(client: httpx.Client, db: Database) -> None:
    served(db, "one", "two")
    alias = {"model": "tiny", "alias": "canary"}
    for weights, status, code, words in (
        ({"v1": 90, "v2": 20}, 400, "invalid_request", "v1=90 + v2=20 is 110"),
        ({"v7": 100}, 404, "version_not_found", "tiny@v7"),
        ({"two": 100}, 400, "invalid_request", "A version is such as v2"),
        ({}, 400, "invalid_request", "1 to 10 versions"),
    ):
        refused = error(client.post("/v1/model_aliases", json=alias | {"weights": weights}), status)
        assert refused["code"] == code
        assert words in refused["message"]
    for name in ("v3", "Stable", "a b", ""):
        error(client.post("/v1/model_aliases", json=alias | {"alias": name, "weights": {"v1": 100}}), 400)
    assert error(client.get("/v1/model_aliases/tiny@none"), 404)["code"] == "alias_not_found"
    assert error(client.get("/v1/model_versions/tiny@v9"), 404)["code"] == "version_not_found"
    assert error(client.get("/v1/model_versions", params={"model": "none"}), 404)["code"] == "model_not_found"
    client.post("/v1/model_versions/tiny@v2/retire")
    refused = error(client.post("/v1/model_aliases/tiny@stable/promote", json={"version": "v2"}), 409)
    assert (refused["code"], "tiny@v2 is retired" in refused["message"]) == ("version_retired", True)
    until(lambda: client.post(CHAT, json={"model": "tiny@v2", **chat()}).status_code == 404, "calls know of it")
    for model, code in (("tiny@v2", "version_retired"), ("tiny@v5", "version_not_found"),
                        ("tiny@canary", "alias_not_found"), ("none@v1", "model_not_found")):  # fmt: skip
        assert error(client.post(CHAT, json={"model": model, **chat()}), 404)["code"] == code
        body = JOBS | {"body": JOBS["body"] | {"model": model}}  # type: ignore[operator]
        assert error(client.post("/v1/jobs", json=body), 404)["code"] == code


def test_other_keys_see_no_sources_and_only_models_that_they_may_ask(
    client: httpx.Client, db: Database, url: str
) -> None:
    served(db, "one")
    _, key = db.run(keys.create, "stranger", "test")
    _, few = db.run(keys.create, "stranger", "test", models=frozenset({"other"}))
    with http(url, key) as stranger, http(url, few) as limited:
        [one] = stranger.get("/v1/model_versions").json()["data"]
        assert (one["id"], one["source"], one["arguments"], one["digest"]) == ("tiny@v1", None, None, None)
        assert one["tunings"] is None
        assert stranger.get("/v1/model_aliases").json()["data"][0]["changed_by"] is None
        assert limited.get("/v1/model_versions").json()["data"] == limited.get("/v1/model_aliases").json()["data"] == []
        for path in (
            "/v1/model_versions/tiny@v1",
            "/v1/model_aliases/tiny@stable",
            "/v1/model_aliases/tiny@stable/history",
        ):
            assert error(limited.get(path), 403)["code"] == "model_not_allowed"
        assert error(limited.post(CHAT, json={"model": "tiny@v1", **chat()}), 403)["code"] == "model_not_allowed"


def test_calls_go_to_the_version_that_their_name_stands_for_and_say_so(
    client: httpx.Client, db: Database, settings: Settings
) -> None:
    served(db, "one", "two")
    with ScriptedIngress(db, settings) as first, ScriptedIngress(db, settings, "tiny@v2") as second:
        first.whole = second.whole = ANSWER

        def ask(model: str, **headers: str) -> httpx.Response:
            answer = client.post(CHAT, json={"model": model, **chat()}, headers=headers)
            assert answer.status_code == 200, answer.text
            return answer

        until(lambda: client.post(CHAT, json={"model": "tiny@v2", **chat()}).status_code == 200, "both are known")
        assert ask("tiny").headers["x-penstock-version"] == "v1"
        told = ask("tiny@v2")
        assert (told.headers["x-penstock-version"], told.json()["model"]) == ("v2", "tiny@v2")
        assert json.loads(second.asked[-1][2])["model"] == "tiny", "as its engine is called"
        client.post("/v1/model_aliases", json={"model": "tiny", "weights": {"v1": 50, "v2": 50}})
        client.post("/v1/model_aliases", json={"model": "tiny", "alias": "canary", "weights": {"v2": 100}})
        assert ask("tiny@canary").headers["x-penstock-version"] == "v2", "a name that is new is looked for at once"
        sessions = {
            str(n): {ask("tiny", **{"x-session-id": str(n)}).headers["x-penstock-version"] for _ in range(3)}
            for n in range(20)
        }
        assert all(len(found) == 1 for found in sessions.values()), "no session is split"
        assert {version for [version] in sessions.values()} == {"v1", "v2"}
        assert {ask("tiny").headers["x-penstock-version"] for _ in range(40)} == {"v1", "v2"}


def test_a_job_is_pinned_to_the_version_that_its_model_stood_for(client: httpx.Client, db: Database) -> None:
    served(db, "one", "two")

    def job(model: str) -> dict[str, object]:
        body = JOBS | {"body": JOBS["body"] | {"model": model}}  # type: ignore[operator]
        made = client.post("/v1/jobs", json=body)
        assert made.status_code in (200, 202), made.text
        found: dict[str, object] = made.json()
        return found

    before = job("tiny")
    assert (before["model"], before["versions"]) == ("tiny", {"tiny": ["v1"]})
    client.post("/v1/model_aliases/tiny@stable/promote", json={"version": "v2"})
    named = job("tiny@v1")
    assert (named["model"], named["versions"]) == ("tiny@v1", {"tiny@v1": ["v1"]})
    again = client.get(f"/v1/jobs/{before['id']}").json()
    assert (again["versions"], again["waiting"]["models"]) == ({"tiny": ["v1"]}, ["tiny@v1"])
    done = client.post("/v1/model_versions/tiny@v1/repin", json={"to": "tiny"}).json()
    assert (done["batches"], done["slices"]) == (1, 1), "but not what names the very version"
    again = client.get(f"/v1/jobs/{before['id']}").json()
    assert (again["versions"], again["waiting"]["models"]) == ({"tiny": ["v2"]}, ["tiny@v2"])
    assert client.get(f"/v1/jobs/{named['id']}").json()["versions"] == {"tiny@v1": ["v1"]}
    assert error(client.post("/v1/model_versions/tiny@v1/retire"), 409)["code"] == "version_in_use"
