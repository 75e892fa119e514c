"""`penstock batches lines` and `errors` over a live API."""

from __future__ import annotations

import json

import httpx
from api.live import chat
from cli.conftest import Penstock

from penstock.service.admin import models
from penstock.service.core.transaction import Database


def test_failed_lines_are_listed_by_pages_and_counted_by_code(
    penstock: Penstock, client: httpx.Client, db: Database
) -> None:
    db.run(models.add, "tiny")
    asked = [{"custom_id": f"q{n}", "body": chat()} for n in range(5)]
    job = client.post("/v1/jobs", json={"model": "tiny", "requests": asked}).json()["id"]
    assert penstock("batches", "errors", job).stdout.split() == ["lines", "group", "first", "line", "message"]
    client.post(f"/v1/jobs/{job}/cancel").raise_for_status()
    shown = penstock("batches", "lines", job, "--failed", "--limit", 2)
    assert [line.split()[:4] for line in shown.stdout.splitlines()[1:]] == [
        [str(n), f"q{n - 1}", "failed", "batch_cancelled"] for n in (1, 2)
    ]
    assert shown.stderr == "there are more: --after 2\n"
    rest = json.loads(penstock("batches", "lines", job, "--code", "batch_cancelled", "--after", 2, "--json").stdout)
    assert ([one["line"] for one in rest["data"]], rest["has_more"]) == ([3, 4, 5], False)
    assert penstock("batches", "errors", job).stdout.splitlines()[1].split()[:3] == ["5", "-:batch_cancelled", "1"]
    assert "No such batch" in penstock("batches", "lines", "batch_nowhere").stderr
