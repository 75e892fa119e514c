"""Evals on live workers: two models over 300 lines, a planted regression, an ended batch, io workers that die."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
from e2e.live import chat, jsonl, until
from faults.house import House

pytestmark = pytest.mark.timeout(300)

LINES = 300
SHORT = frozenset(range(10, LINES, 20))
"""Fifteen lines, five points, that the second model answers wrongly."""
FEW_TOKENS = 8


@pytest.fixture(scope="module")
def house(shared_database_url: str, valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A platform with two models: `padded` lengthens short answers."""
    folder = tmp_path_factory.mktemp("evals")
    house = House(
        shared_database_url, valkey_url, folder, lease_seconds="3", beat_seconds="0.5", hint_again_seconds="1"
    )
    first = house.residents["gpu-1"]
    own = {"PENSTOCK_RUNTIME_DIR": first.environment["PENSTOCK_RUNTIME_DIR"] + "-2"}
    arguments = ["penstock_worker", "gpu", "--model", "padded=echo", "--engine", "echo"]
    arguments.append(f"--engine-arg=--output-tokens={FEW_TOKENS}")
    house.residents["gpu-2"] = dataclasses.replace(
        first, name="gpu-2", arguments=arguments, environment=first.environment | own, log=house.logs / "gpu-2.log"
    )
    with house:
        yield house


def question(number: int) -> str:
    return f"q{number}" if number in SHORT else f"a question that is long enough, number {number}"


def lines(model: str = "tiny") -> list[dict[str, Any]]:
    return [chat(f"line-{n}", question(n), model, temperature=1.0) for n in range(LINES)]


def references() -> bytes:
    """What is expected, in another order than the lines."""
    return jsonl([{"custom_id": f"line-{n}", "expected": f" {question(n).upper()}"} for n in reversed(range(LINES))])


EXACT = {"type": "exact", "name": "exact", "normalise": ["trim", "lower"]}
SCORERS = [EXACT, {"type": "regex", "name": "long", "pattern": "long enough"}]


def post(house: House, path: str, **body: Any) -> dict[str, Any]:
    answer = house.client.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def upload(house: House, data: bytes, purpose: str) -> str:
    answer = house.client.http.post("/files", files={"file": ("f.jsonl", data)}, data={"purpose": purpose})
    return str(answer.raise_for_status().json()["id"])


@pytest.fixture(scope="module")
def eval_id(house: House) -> str:
    """One eval for the whole file; its lines name a model that no run asks."""
    files = {
        "input_file_id": upload(house, jsonl(lines("nobody")), "batch"),
        "reference_file_id": upload(house, references(), "evals"),
    }
    return str(post(house, "/evals", name="questions", scorers=SCORERS, **files)["id"])


def ended(house: House, path: str) -> dict[str, Any]:
    """A run or comparison once it has ended."""
    seen: list[dict[str, Any]] = [{}]

    def look() -> bool:
        seen[0] = house.client.http.get(path).raise_for_status().json()
        return seen[0]["status"] in ("completed", "failed", "cancelled")

    until(look, lambda: f"the end of {seen[0]}", 90)
    return seen[0]


def run(house: House, eval_id: str, **body: Any) -> dict[str, Any]:
    """A run that has completed."""
    made = post(house, f"/evals/{eval_id}/runs", **body)
    done = ended(house, f"/evals/{eval_id}/runs/{made['id']}")
    assert done["status"] == "completed", done
    return done


@pytest.fixture(scope="module")
def baseline(house: House, eval_id: str) -> dict[str, Any]:
    return run(house, eval_id, model="tiny")


def compared(house: House, eval_id: str, baseline: str, candidate: str) -> dict[str, Any]:
    pair = {"baseline_run_id": baseline, "candidate_run_id": candidate}
    made = post(house, f"/evals/{eval_id}/comparisons", **pair)
    again = post(house, f"/evals/{eval_id}/comparisons", **pair)
    assert again["id"] == made["id"], "the same two runs are compared once"
    return ended(house, f"/evals/{eval_id}/comparisons/{made['id']}")


def test_a_run_asks_its_model_and_every_line_has_its_scores_in_the_order_of_custom_ids(
    house: House, eval_id: str, baseline: dict[str, Any]
) -> None:
    assert baseline["result_counts"] == {"total": LINES, "passed": LINES - 15, "failed": 15, "errored": 0}
    exact, long = baseline["scores"]
    assert (exact["mean"], exact["passed"], exact["failed"], exact["errors"]) == (1.0, LINES, 0, 0)
    assert exact["low"] < 0.99 < exact["high"] == 1.0
    assert (long["mean"], long["failed"]) == (0.95, 15)
    batch = house.client.http.get(f"/batches/{baseline['batch_id']}").json()
    assert (batch["model"], batch["metadata"]["penstock_eval_run"]) == ("tiny", baseline["id"])
    assert (baseline["batch"]["lines"], baseline["batch"]["done"]) == (LINES, LINES)
    assert baseline["batch"]["output_tokens"] == batch["usage"]["output_tokens"] > 0
    assert baseline["batch"]["seconds"] > 0
    results = house.client.file(baseline["result_file_id"])
    assert [one["custom_id"] for one in results] == sorted(f"line-{n}" for n in range(LINES))
    missed = {one["custom_id"] for one in results if not one["passed"]}
    assert missed == {f"line-{n}" for n in SHORT}
    [worst] = [one for one in results if one["custom_id"] == "line-10"]
    assert worst["scores"] == [
        {"name": "exact", "score": 1.0, "passed": True, "reason": None},
        {"name": "long", "score": 0.0, "passed": False, "reason": "no match in 'q10'"},
    ]


def test_a_planted_regression_of_five_points_is_found(house: House, eval_id: str, baseline: dict[str, Any]) -> None:
    candidate = run(house, eval_id, model="padded")
    done = compared(house, eval_id, baseline["id"], candidate["id"])
    assert done["lines"] == {"paired": LINES, "only_baseline": 0, "only_candidate": 0}
    exact, long = done["scores"]
    assert (exact["difference"], exact["better"], exact["worse"], exact["same"]) == (-0.05, 0, 15, LINES - 15)
    assert exact["low"] < -0.05 < exact["high"] < 0
    assert exact["verdict"] == "worse"
    assert (long["difference"], long["verdict"]) == (0, "no_difference_shown")
    took = [done[side]["output_tokens"] for side in ("baseline", "candidate")]
    assert took == [baseline["batch"]["output_tokens"], LINES * FEW_TOKENS], "what it took is beside it"


def test_a_batch_that_has_ended_is_scored_without_being_run_again(
    house: House, eval_id: str, baseline: dict[str, Any]
) -> None:
    batch = house.client.ended(house.client.submit(lines()).id)
    asked = house.ask("select count(*) from batches")
    done = run(house, eval_id, batch_id=batch.id)
    assert (done["model"], done["batch_id"], done["batch"]["lines"]) == (None, batch.id, LINES)
    assert house.ask("select count(*) from batches") == asked
    assert done["scores"] == baseline["scores"]
    same = compared(house, eval_id, baseline["id"], done["id"])
    assert [score["verdict"] for score in same["scores"]] == ["no_difference_shown"] * 2
    assert house.client.file(done["result_file_id"]) == house.client.file(baseline["result_file_id"])


def test_nearness_is_scored_by_the_embeddings_of_a_served_model(house: House) -> None:
    own = [chat(f"{n}", f"text {n}") | {"expected": f"text {n}" if n % 2 else "another"} for n in range(20)]
    near = {"type": "similarity", "name": "near", "model": "tiny", "pass_threshold": 0.99}
    made = post(house, "/evals", name="near", scorers=[near], input_file_id=upload(house, jsonl(own), "batch"))
    done = run(house, made["id"], model="padded", set={"max_tokens": 100})
    embedding = house.client.http.get(f"/batches/{done['embeddings_batch_id']}").json()
    assert (embedding["endpoint"], embedding["request_counts"]["completed"]) == ("/v1/embeddings", 20)
    assert done["scores"][0]["passed"] == 0, "the second model pads what is short"
    done = run(house, made["id"], model="tiny")
    assert done["scores"][0]["passed"] == 10
    scores = {one["custom_id"]: one["scores"][0]["score"] for one in house.client.file(done["result_file_id"])}
    assert {scores[f"{n}"] for n in range(1, 20, 2)} == {1.0}
    assert all(-1 <= scores[f"{n}"] < 0.99 for n in range(0, 20, 2))


@pytest.mark.slow
def test_an_io_worker_that_dies_before_its_commit_leaves_the_run_to_the_next_one(
    house: House, eval_id: str, baseline: dict[str, Any]
) -> None:
    house.restart("io-1", failpoints="eval.scored=kill")
    made = post(house, f"/evals/{eval_id}/runs", batch_id=baseline["batch_id"])
    house.wait("io-1", 60)
    house.start("io-1")
    done = ended(house, f"/evals/{eval_id}/runs/{made['id']}")
    assert done["status"] == "completed", done
    assert house.client.file(done["result_file_id"]) == house.client.file(baseline["result_file_id"])


def test_a_cancelled_run_cancels_its_batch(house: House, eval_id: str) -> None:
    made = upload(house, jsonl([chat("1", "[[sleep 60000]]") | {"expected": "x"}]), "batch")
    one = post(house, "/evals", name="slow", scorers=[EXACT], input_file_id=made)["id"]
    id = post(house, f"/evals/{one}/runs", model="tiny")["id"]
    path = f"/evals/{one}/runs/{id}"
    until(lambda: house.client.http.get(path).json()["status"] == "running", "its batch")
    cancelled = post(house, f"{path}/cancel")
    assert cancelled["status"] == post(house, f"{path}/cancel")["status"] == "cancelled"
    assert house.client.ended(cancelled["batch_id"]).status == "cancelled"
    assert json.loads(house.client.http.delete(path).text)["deleted"] is True
