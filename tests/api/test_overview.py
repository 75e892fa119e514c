"""`/v1/admin/overview`, `lanes`, `samples` and `recovery`: what an operator sees of the platform."""

from __future__ import annotations

import httpx
from api.live import arrive, create, error, upload

from penstock.domain.calls.ingress import Load
from penstock.domain.engines.engine_report import EngineReport
from penstock.service.admin import samples
from penstock.service.calls import ingresses
from penstock.service.core.transaction import Database
from penstock.service.lifecycle import work
from penstock.settings import Settings

REPORT = EngineReport(slots=12, most_lines=8, calls=1, lines={"standard": 3}, waiting={}, output_tokens_per_second=9.0)


def test_an_operator_sees_the_platform_its_lanes_charts_and_what_went_wrong(
    client: httpx.Client, db: Database, settings: Settings, model: str
) -> None:
    empty = client.get("/v1/admin/overview").json()
    assert (empty["models"], empty["late_batches"]) == ([], 0)
    assert {one["what"] for one in empty["missing"]} == {"keeper", "io_worker"}
    gpu = arrive(db, settings, "gpu", model)
    db.run(ingresses.pulse, gpu, Load(True, 1, 3, 8, "all", 50.0, REPORT))
    create(client, upload(client)["id"])
    job = {"model": model, "requests": [{"body": {"messages": [{"role": "user", "content": "hello"}]}}]}
    made = client.post("/v1/jobs", json=job)
    assert made.status_code == 200, made.text

    seen = client.get("/v1/admin/overview").json()
    [one] = seen["models"]
    assert (one["model"], one["workers"], one["calls"], one["slots"], one["slots_used"]) == (model, 1, 1, 12, 4)
    assert one["backlog_lines"] == one["lanes"]["priority"]["lines"] + one["lanes"]["standard"]["lines"] == 1
    assert one["backlog_hours"] > 0
    assert {it["what"] for it in seen["missing"]} == {"keeper", "io_worker", "ingress_token"}

    lanes = client.get("/v1/admin/lanes").json()
    assert [it["id"] for it in lanes["data"]] == ["priority", "standard", "flex"]
    assert lanes["data"][1]["share"] == 1.0

    db.run(samples.take, settings)
    asked = {"series": ["backlog_lines", "slots_used"], "step": 10}
    chart = client.get("/v1/admin/samples", params=asked).json()
    assert len(chart["data"]) == 2
    assert len(chart["times"]) == len(chart["data"][0]["values"]) <= 361
    by_model = client.get("/v1/admin/samples", params=asked | {"series": "backlog_lines", "group_by": "model"}).json()
    assert [(it["model"], it["lane"], it["unit"]) for it in by_model["data"]] in ([], [(model, None, "lines")])
    for wrong in ({}, {"series": "x"}, {"series": "calls", "step": 15}, {"series": "calls", "since": 5, "until": 4}):
        error(client.get("/v1/admin/samples", params=wrong), 400)

    db.run(work.count, "engine_death", about=str(gpu.id))
    found = client.get("/v1/admin/recovery", params={"limit": 5}).json()
    deaths = next(it for it in found["incidents"] if it["name"] == "engine_death")
    assert (deaths["total"], [it["about"] for it in deaths["newest"]]) == (1, [str(gpu.id)])
