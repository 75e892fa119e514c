"""`penstock evals`: files go up, runs are followed to their end, and a comparison is a table that people read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from api.live import arrive, chat, completion, settle_one
from cli.conftest import Penstock

from penstock.blobs.store import Blobs
from penstock.domain.work.holder import Holder
from penstock.service.admin import models
from penstock.service.core.transaction import Database
from penstock.settings import Settings
from penstock_worker.io.eval_tasks import EvalTasks
from penstock_worker.runtime.beat import Beat


@pytest.fixture
def io(db: Database, settings: Settings) -> EvalTasks:
    """An io worker that works on evals as soon as somebody asks the API how they stand."""
    holder: Any = None  # it beats for nobody
    return EvalTasks(db, Blobs(settings.blob_url), Beat(db, holder, settings), settings)


@pytest.fixture
def working(io: EvalTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(_: float) -> None:
        while io.look():
            pass

    monkeypatch.setattr("penstock.cli.commands.evals.time.sleep", sleep)


def job(client: httpx.Client, db: Database, settings: Settings, *texts: str) -> str:
    """A small job that has ended with these answers."""
    bodies = [{"custom_id": f"q{n}", "body": chat() | {"model": "tiny"}} for n in range(1, len(texts) + 1)]
    id = client.post("/v1/jobs", json={"requests": bodies}).json()["id"]
    holder: Holder = arrive(db, settings, "gpu", "tiny")
    settle_one(db, settings, holder, lambda number, _: (200, completion(texts[number - 1])))
    return str(id)


@pytest.fixture
def model(db: Database) -> None:
    db.run(models.add, "tiny")


def made(penstock: Penstock, *arguments: str) -> str:
    done = penstock("evals", "create", "labels", *arguments)
    assert done.exit_code == 0, done.output
    return done.output.strip()


@pytest.mark.usefixtures("model", "working")
def test_two_batches_are_scored_and_the_second_is_compared_with_the_first(
    penstock: Penstock, client: httpx.Client, db: Database, settings: Settings, tmp_path: Path
) -> None:
    references = [{"custom_id": f"q{n}", "expected": "right"} for n in range(1, 9)]
    (tmp_path / "expected.jsonl").write_text("\n".join(map(json.dumps, references)))
    eval = made(penstock, "--references", "expected.jsonl", "--exact", "--regex", "r")
    first = job(client, db, settings, *["right"] * 8)
    second = job(client, db, settings, "right", *["so so"] * 7)
    done = penstock("evals", "run", eval, "--batch", first, "--batch", second, "--wait")
    assert done.exit_code == 0, done.output
    assert "1.000 (0.676 to 1.000)" in done.output
    row = next(line for line in done.output.splitlines() if line.startswith("exact "))
    assert row.split() == ["exact", "1.000", "0.125", "-0.875", "-1.000", "to", "-0.500", "0", "7", "1", "worse"]
    assert "8 lines paired" in done.output

    runs = json.loads(penstock("evals", "list", eval, "--json").output)["data"]
    assert [one["batch_id"] for one in runs] == [second, first]
    one = penstock("evals", "show", eval, runs[0]["id"])
    assert "line by line: penstock files download file-" in one.output
    assert ["exact", "exact", "0.125", "0.022", "to", "0.471", "1", "7", "0"] in map(str.split, one.output.splitlines())
    assert eval in penstock("evals", "list").output
    assert runs[0]["id"] in penstock("evals", "show", eval).output
    table = penstock("evals", "compare", eval, runs[1]["id"], runs[0]["id"])
    assert (table.exit_code, "the candidate is" in table.output) == (0, True)
    told = json.loads(penstock("evals", "compare", eval, runs[1]["id"], runs[0]["id"], "--json").output)
    assert [score["verdict"] for score in told["scores"]] == ["worse", "worse"]
    assert json.loads(penstock("evals", "delete", eval, runs[0]["id"], "--json").output)["deleted"] is True
    assert penstock("evals", "delete", eval).output == f"{eval} deleted\n"


@pytest.mark.usefixtures("model", "working")
def test_a_run_that_fails_says_why_and_exits_with_1(penstock: Penstock, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("not json\n")
    eval = made(penstock, "--input", "in.jsonl", "--regex", ".")
    done = penstock("evals", "run", eval, "--model", "tiny", "--set", "temperature=0", "--wait")
    assert done.exit_code == 1
    assert "failed: Line 1: This line is not parseable as valid JSON." in done.output
    as_json = penstock("evals", "run", eval, "--model", "tiny", "--wait", "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)["data"][0]["status"]) == (1, "failed")
    quick = penstock("evals", "run", eval, "--model", "tiny")
    assert quick.exit_code == 0
    cancelled = penstock("evals", "cancel", eval, quick.output.strip())
    assert cancelled.output.endswith("cancelled\n")


def test_each_scorer_has_an_option_and_all_can_come_from_a_file(
    penstock: Penstock, client: httpx.Client, tmp_path: Path
) -> None:
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    (tmp_path / "scorers.json").write_text('[{"type": "regex", "name": "own", "pattern": "x"}]')
    eval = made(
        penstock, "--scorers", "scorers.json", "--exact", "--normalise", "lower", "--extract", "a(b)", "--regex", "1",
        "--regex", "2", "--schema", "schema.json", "--similar", "embed", "--threshold", "0.5",
    )  # fmt: skip
    found = client.get(f"/v1/evals/{eval}").json()["scorers"]
    assert [one["name"] for one in found] == ["own", "exact", "regex", "regex 2", "schema", "similarity"]
    assert found[1] == {"name": "exact", "type": "exact", "normalise": ["lower"], "extract": "a(b)"}
    assert found[5]["pass_threshold"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "Say how to score"),
        (("--scorers", "missing.json"), "missing.json can't be read"),
        (("--schema", "list.json"), "must hold a JSON object"),
        (("--regex", "("), "The pattern is none"),
        (("--exact", "--references", "missing.jsonl"), "missing.jsonl"),
        (("--exact", "--references", "file-gone"), "No such file"),
    ],
)
def test_what_can_not_be_made_is_one_line(
    penstock: Penstock, tmp_path: Path, arguments: tuple[str, ...], why: str
) -> None:
    (tmp_path / "list.json").write_text("[]")
    done = penstock("evals", "create", "labels", *arguments)
    assert done.exit_code == 1
    assert why in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert "Say whose answers" in penstock("evals", "run", "eval_x").output
