"""OpenAI's SDK for Node works against the platform, unchanged: what `node/sdk.js` does with it comes out right."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from e2e.live import Platform, chat, jsonl, said

from penstock.stack import postgres

HERE = Path(__file__).parent / "node"
NODE = shutil.which("node")

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(NODE is None, reason="node is not there"),
    pytest.mark.skipif(not (HERE / "node_modules" / "openai").is_dir(), reason="no openai for Node: `make node-sdk`"),
]

LINES = jsonl([chat(f"line-{n}", f"question {n}" + " [[status 400]]" * (n == 3)) for n in range(9)]).decode()

Does = Callable[..., Any]


@pytest.fixture
def tenant(platform: Platform) -> str:
    name = f"node-{uuid.uuid4().hex[:8]}"
    platform.http.post("/admin/tenants", json={"name": name}).raise_for_status()
    return name


@pytest.fixture
def environment(platform: Platform, tenant: str) -> dict[str, str]:
    """What leads the script to the platform, with a key of a new tenant's own."""
    made = platform.http.post("/admin/api_keys", json={"tenant": tenant, "name": "node"}).raise_for_status().json()
    return os.environ | {"BASE_URL": f"{platform.url}/v1", "API_KEY": made["value"], "LINES": LINES}


@pytest.fixture
def does(environment: dict[str, str]) -> Does:
    """Run one action of the script; its outcome."""

    def run(what: str) -> Any:
        command = [str(NODE), "sdk.js", what]
        done = subprocess.run(
            command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert not done.returncode, done.stderr
        return json.loads(done.stdout)

    return run


def test_a_batch_lives_its_whole_life(does: Does) -> None:
    life = does("life")
    assert (life["created"]["status"], life["created"]["metadata"]) == ("validating", {"of": "node"})
    batch = life["batch"]
    assert (batch["status"], batch["request_counts"]) == ("completed", {"total": 9, "completed": 8, "failed": 1})
    assert [said(line) for line in life["output"]] == [f"question {n}" for n in range(9) if n != 3]
    assert [line["custom_id"] for line in life["errors"]] == ["line-3"]


def test_a_batch_is_cancelled(does: Does) -> None:
    now, at_last = does("cancel")
    assert now in ("cancelling", "cancelled")
    assert at_last == "cancelled"


def test_a_file_comes_in_parts(does: Does) -> None:
    found = does("upload")
    assert found["same"]
    assert (found["done"]["status"], found["done"]["file"]["bytes"]) == ("completed", len(LINES))
    assert found["cancelled"]["status"] == "cancelled"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["files", "batches"])
def test_who_deletes_while_paging_meets_each_once(does: Does, kind: str) -> None:
    found = does(kind)
    assert found["found"] == found["made"]
    assert found["left"] == 0


def test_errors_are_of_the_sdks_own_classes(does: Does) -> None:
    found = does("errors")
    assert found["401"][:3] == ["AuthenticationError", 401, "invalid_api_key"]
    assert found["404"][:2] == ["NotFoundError", 404]
    assert found["400"][:2] == ["BadRequestError", 400]
    assert found["400"][3] == "input_file_id"
    assert found["409"][:2] == ["ConflictError", 409]
    assert all(one[-1] for one in found.values()), "each has its request id"


def test_a_limit_is_a_rate_limit_error(does: Does, platform: Platform, tenant: str) -> None:
    limits = {"requests_per_minute": 2}
    platform.http.post(f"/admin/tenants/{tenant}/limits", json=limits).raise_for_status()
    assert does("limited")[:2] == ["RateLimitError", 429]


def test_a_create_whose_answer_is_cut_off_and_that_the_sdk_repeats_is_one_batch(
    platform: Platform, environment: dict[str, str], tenant: str
) -> None:
    command = [str(NODE), "sdk.js", "repeat"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=HERE, env=environment, text=True, **pipes) as node:  # type: ignore[call-overload]
        try:
            assert node.stderr.readline() == "ready\n"
            with psycopg.connect(postgres.url(platform.runtime / "postgres")) as connection:
                connection.execute("lock table batches in exclusive mode")
                timer = threading.Timer(2.5, connection.rollback)
                timer.start()
                told, said_too = node.communicate("go\n", timeout=60)
                timer.join()
        finally:
            node.kill()
    assert not node.returncode, said_too
    query = "select array_agg(id) from batches where tenant = %s"
    assert platform.ask(query, tenant) == [json.loads(told)["id"]]
