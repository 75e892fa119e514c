"""`/v1/evals`: what is taken, what is refused and how, and that a create that comes twice is done once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from api.live import CHAT, KEY, create, error, sdk, serving, upload
from sqlalchemy import text

from penstock.service.core.transaction import Database
from penstock.settings import Settings


@pytest.fixture(scope="module")
def url(shared_database_url: str, valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One live API for the whole file."""
    settings = Settings(
        database_url=shared_database_url,
        redis_url=valkey_url,
        blob_url=f"file://{tmp_path_factory.mktemp('blobs')}",
        bootstrap_key=KEY,
    )
    with serving(settings) as address:
        yield address


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    return shared_database_url


ANY = {"type": "regex", "name": "any", "pattern": "."}


def made(client: httpx.Client, **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/evals", json={"name": "e", "scorers": [ANY]} | more)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
def eval_id(client: httpx.Client, model: str) -> str:
    return str(made(client, input_file_id=upload(client)["id"])["id"])


def test_an_eval_is_what_was_sent_with_what_was_left_out(client: httpx.Client) -> None:
    file = upload(client)["id"]
    scorers = [
        {"type": "exact", "name": "a", "normalise": ["lower", "trim"], "extract": "x(.)"},
        ANY,
        {"type": "json_schema", "name": "c", "schema": {"type": "object"}},
        {"type": "similarity", "name": "d", "model": "embed"},
    ]
    one = made(client, scorers=scorers, input_file_id=file, reference_file_id=file, metadata={"team": "search"})
    assert one["id"].startswith("eval_")
    assert (one["object"], one["run_count"], one["endpoint"]) == ("eval", 0, CHAT)
    assert one["scorers"] == [
        {"name": "a", "type": "exact", "normalise": ["trim", "lower"], "extract": "x(.)"},
        {"name": "any", "type": "regex", "pattern": "."},
        {"name": "c", "type": "json_schema", "schema": {"type": "object"}},
        {"name": "d", "type": "similarity", "model": "embed", "pass_threshold": 0.8},
    ]
    assert client.get(f"/v1/evals/{one['id']}").json() == one
    assert made(client, scorers=[{"type": "exact", "name": "a"}])["scorers"][0]["normalise"] == ["trim"]
    page = client.get("/v1/evals", params={"limit": 1}).json()
    assert page["has_more"] is True
    rest = client.get("/v1/evals", params={"after": page["last_id"]}).json()
    assert [found["id"] for found in rest["data"]] == [one["id"]]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"name": ""}, "name"),
        ({"scorers": []}, "scorers"),
        ({"scorers": [ANY] * 11}, "scorers"),
        ({"scorers": [ANY, ANY]}, "scorers"),
        ({"scorers": [ANY | {"pattern": "("}]}, "scorers[0].pattern"),
        ({"scorers": [ANY | {"pattern": "x" * 1_001}]}, "scorers"),
        ({"scorers": [{"type": "judge", "name": "x"}]}, "scorers"),
        ({"scorers": [ANY | {"odd": 1}]}, "scorers"),
        ({"scorers": [{"type": "json_schema", "name": "x", "schema": {"$ref": "http://x"}}]}, "scorers[0].schema"),
        ({"scorers": [{"type": "json_schema", "name": "x", "schema": {"a": "\0"}}]}, "scorers[0].schema"),
        ({"scorers": [{"type": "similarity", "name": "x", "model": "m", "pass_threshold": 2}]}, "scorers"),
        ({"input_file_id": "file-x"}, "input_file_id"),
        ({"reference_file_id": "file-x"}, "reference_file_id"),
        ({"endpoint": CHAT}, "endpoint"),
        ({"odd": 1}, "odd"),
    ],
)
def test_what_an_eval_can_not_be_is_a_400_that_names_it(
    client: httpx.Client, change: dict[str, Any], param: str
) -> None:
    body = error(client.post("/v1/evals", json={"name": "e", "scorers": [ANY]} | change), 400)
    assert body["param"].startswith(param)


def test_only_endpoints_that_write_are_scored(client: httpx.Client) -> None:
    asked = {"name": "e", "scorers": [ANY], "input_file_id": upload(client)["id"], "endpoint": "/v1/embeddings"}
    assert error(client.post("/v1/evals", json=asked), 400)["param"] == "endpoint"


def test_a_run_begins_with_its_preparation_and_can_be_cancelled_and_deleted(client: httpx.Client, eval_id: str) -> None:
    path = f"/v1/evals/{eval_id}/runs"
    asked = {"model": "tiny", "name": "first", "set": {"temperature": 0}, "metadata": {"a": "b"}}
    run = client.post(path, json=asked).json()
    assert run["id"].startswith("evalrun_")
    nothing = ("batch", "batch_id", "result_counts", "scores", "result_file_id", "error", "ended_at")
    assert {run[name] for name in nothing} == {None}
    assert (run["status"], run["model"], run["set"], run["scored"]) == ("preparing", "tiny", {"temperature": 0}, 0)
    assert client.get(f"/v1/evals/{eval_id}").json()["run_count"] == 1
    assert [one["id"] for one in client.get(path).json()["data"]] == [run["id"]]
    assert error(client.delete(f"{path}/{run['id']}"), 409)["code"] == "conflict"
    assert error(client.delete(f"/v1/evals/{eval_id}"), 409)["code"] == "conflict"
    done = client.post(f"{path}/{run['id']}/cancel").json()
    assert done["status"] == client.post(f"{path}/{run['id']}/cancel").json()["status"] == "cancelled"
    assert done["ended_at"] >= done["created_at"]
    assert client.delete(f"{path}/{run['id']}").json() == {
        "object": "eval.run.deleted", "deleted": True, "run_id": run["id"],
    }  # fmt: skip
    assert client.get(path, params={"after": run["id"]}).json()["data"] == [], "its place is kept for a while"
    assert client.delete(f"/v1/evals/{eval_id}").json()["eval_id"] == eval_id
    error(client.get(f"/v1/evals/{eval_id}"), 404)
    error(client.get(path), 404)


@pytest.mark.parametrize(
    ("asked", "status", "param"),
    [
        ({}, 400, "model"),
        ({"model": "tiny", "batch_id": "batch_x"}, 400, "model"),
        ({"batch_id": "batch_x"}, 404, "batch_id"),
        ({"batch_id": "batch_x", "set": {"seed": 1}}, 400, "set"),
        ({"model": "tiny", "set": {"messages": []}}, 400, "set.messages"),
        ({"model": "tiny", "set": {"x": "\0"}}, 400, "set"),
        ({"model": "tiny", "completion_window": "soon"}, 400, "completion_window"),
        ({"model": "tiny", "lane": "fast"}, 400, "lane"),
    ],
)
def test_what_a_run_can_not_be_is_told(
    client: httpx.Client, eval_id: str, asked: dict[str, Any], status: int, param: str
) -> None:
    assert error(client.post(f"/v1/evals/{eval_id}/runs", json=asked), status)["param"] == param


def test_a_batch_that_has_not_ended_is_a_conflict(client: httpx.Client, eval_id: str) -> None:
    batch = create(client, upload(client)["id"])["id"]
    answer = client.post(f"/v1/evals/{eval_id}/runs", json={"batch_id": batch})
    assert "once it has ended" in error(answer, 409)["message"]


def test_runs_that_have_not_completed_are_not_compared(client: httpx.Client, eval_id: str) -> None:
    ids = [client.post(f"/v1/evals/{eval_id}/runs", json={"model": "tiny"}).json()["id"] for _ in range(2)]
    pair = {"baseline_run_id": ids[0], "candidate_run_id": ids[1]}
    path = f"/v1/evals/{eval_id}/comparisons"
    assert "only completed ones" in error(client.post(path, json=pair), 409)["message"]
    assert error(client.post(path, json=pair | {"candidate_run_id": ids[0]}), 400)["param"] == "candidate_run_id"
    assert error(client.post(path, json=pair | {"candidate_run_id": "x"}), 404)["param"] == "run_id"
    error(client.get(f"{path}/evalcmp_x"), 404)


def test_the_same_create_under_the_same_key_is_done_once(client: httpx.Client, eval_id: str) -> None:
    headers = {"idempotency-key": "once"}
    body = {"name": "e", "scorers": [ANY]}
    first, second = (client.post("/v1/evals", json=body, headers=headers).json()["id"] for _ in range(2))
    assert first == second
    error(client.post("/v1/evals", json=body | {"name": "other"}, headers=headers), 409)
    path = f"/v1/evals/{eval_id}/runs"
    runs = {client.post(path, json={"model": "tiny"}, headers=headers).json()["id"] for _ in range(2)}
    assert len(runs) == 1


def test_openais_sdk_reads_what_it_knows_of_evals_and_runs(client: httpx.Client, eval_id: str, url: str) -> None:
    run = client.post(f"/v1/evals/{eval_id}/runs", json={"model": "tiny"}).json()["id"]
    with sdk(url) as openai:
        assert next(iter(openai.evals.list())).id == eval_id
        assert openai.evals.retrieve(eval_id).name == "e"
        seen = openai.evals.runs.retrieve(run, eval_id=eval_id)
        assert (seen.id, seen.model, seen.status) == (run, "tiny", "preparing")
        assert [one.id for one in openai.evals.runs.list(eval_id)] == [run]


def test_what_is_done_to_evals_is_audited(client: httpx.Client, eval_id: str, db: Database) -> None:
    run = client.post(f"/v1/evals/{eval_id}/runs", json={"model": "tiny"}).json()["id"]
    client.post(f"/v1/evals/{eval_id}/runs/{run}/cancel")
    client.delete(f"/v1/evals/{eval_id}/runs/{run}")
    client.delete(f"/v1/evals/{eval_id}")
    asked = text("select action, target from audit where target in (:eval, :run) order by id")
    rows = db.run(lambda tx: tx.conn.execute(asked, {"eval": eval_id, "run": run}).all())
    assert [(row.action, row.target) for row in rows] == [
        ("eval.created", eval_id), ("eval_run.created", run), ("eval_run.cancelled", run),
        ("eval_run.deleted", run), ("eval.deleted", eval_id),
    ]  # fmt: skip
