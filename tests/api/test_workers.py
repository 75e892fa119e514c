"""`/v1/workers`: who there is, how each stands, and what an operator tells them."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

import httpx
import pytest
from api.live import arrive, error
from sqlalchemy import text

import penstock
from penstock.domain.calls.ingress import Load
from penstock.domain.engine_trouble import EngineTrouble
from penstock.domain.engines.engine_report import EngineReport
from penstock.domain.engines.profile import EngineLack
from penstock.domain.engines.profiles import ECHO, VLLM
from penstock.domain.fleet.worker import WorkerOrders
from penstock.service.calls import ingresses
from penstock.service.core.transaction import Database
from penstock.service.lifecycle import work
from penstock.settings import Settings


def states(client: httpx.Client, **params: Any) -> dict[str, str]:
    """How each stands, by its id."""
    answer = client.get("/v1/workers", params={"limit": 100} | params)
    assert answer.status_code == 200, answer.text
    return {one["id"]: one["state"] for one in answer.json()["data"]}


def silence(db: Database, seconds: int, column: str = "seen_at") -> None:
    """Let all workers have been silent for so long."""
    passed = text(f"update workers set {column} = {column} - make_interval(secs => :seconds)")
    db.run(lambda tx: tx.conn.execute(passed, {"seconds": seconds}))


def seconds_in(words: str | None, sentence: str) -> int:
    """The number that stands for `#` in a sentence: what passed by itself on a busy machine is in it."""
    found = re.match(re.escape(sentence).replace(r"\#", r"(\d+)"), words or "")
    assert found, words
    return int(found[1])


def test_the_fleet_is_listed_with_what_each_has_in_hand(
    client: httpx.Client, db: Database, settings: Settings, model: str
) -> None:
    gpu, io, keeper = arrive(db, settings, "gpu", model), arrive(db, settings, "io"), arrive(db, settings, "keeper")
    db.run(ingresses.announce, gpu, "http://127.0.0.1:1", [model, "adapter"], 9, settings)
    db.run(ingresses.pulse, gpu, Load(True, 2, 5, 6, "slots", 12.34))
    page = client.get("/v1/workers").json()
    assert [one["id"] for one in page["data"]] == [str(one.id) for one in (gpu, io, keeper)]
    seen = page["data"][0]
    assert 0 <= seen.pop("last_seen_seconds") < 20
    assert 0 <= seen.pop("last_beat_seconds") < 20
    assert seen.pop("started_at") <= seen.pop("last_seen_at")
    assert seen == {
        "id": str(gpu.id),
        "object": "worker",
        "kind": "gpu",
        "model": model,
        "serves": [model, "adapter"],
        "state": "ready",
        "orders": [],
        "trouble": None,
        "host": gpu.host,
        "pid": gpu.pid,
        "region": "",
        "version": penstock.__version__,
        "slots": 8,
        "engine": None,
        "lacks": [],
        "load": {"leases": 0, "lines": 5, "calls": 2, "budget": 6, "tokens_per_second": 12.3},
        "device": None,
        "engine_slots": None,
        "waiting": None,
        "engine_now": None,
    }
    first = client.get("/v1/workers", params={"limit": 1}).json()
    rest = client.get("/v1/workers", params={"after": first["last_id"]}).json()
    assert (first["has_more"], [one["id"] for one in first["data"] + rest["data"]]) == (True, [*states(client)])
    error(client.get("/v1/workers", params={"after": str(uuid4())}), 404)


def test_the_slots_of_an_engine_are_shown_each_once_with_why_some_are_closed(
    client: httpx.Client, db: Database, settings: Settings, model: str
) -> None:
    gpu = arrive(db, settings, "gpu", model)
    report = EngineReport(
        slots=12, most_lines=8, calls=2, lines={"flex": 3}, waiting={"calls": 1, "flex": 40}, kv_usage=0.93,
        preemptions=5, prefix_hit_rate=0.25, output_tokens_per_second=81.5, ttft=(0,) * 20 + (9, 1) + (0,) * 28,
    )  # fmt: skip
    db.run(ingresses.pulse, gpu, Load(True, 3, 3, 4, "kv", 12.34, report))
    db.run(ingresses.pulse, gpu, Load(True, 3, 3, 4, "kv", 12.34))
    seen = client.get(f"/v1/workers/{gpu.id}").json()
    assert seen["engine_slots"] == {
        "total": 12,
        "calls": 2,
        "lines": {"priority": 0, "standard": 0, "flex": 3},
        "free": 1,
        "closed": 2,
        "reserved": 4,
        "closed_because": "the engine's KV cache is nearly full",
        "budget_reason": "kv",
    }
    assert seen["waiting"] == {"calls": 1, "priority": 0, "standard": 0, "flex": 40}
    assert seen["engine_now"] == {
        "kv_usage": 0.93,
        "preemptions": 5,
        "prefix_hit_rate": 0.25,
        "input_tokens_per_second": None,
        "output_tokens_per_second": 81.5,
        "ttft": {"calls": 10, "p50_ms": 112.2, "p95_ms": 141.3},
    }
    silence(db, round(settings.worker_gone_seconds) + 1)
    assert client.get(f"/v1/workers/{gpu.id}").json()["engine_slots"] is None


def test_a_workers_engine_and_what_that_lacks_are_shown_with_it_and_with_its_model(
    client: httpx.Client, db: Database, settings: Settings, model: str
) -> None:
    assert client.get(f"/v1/models/{model}").json()["engines"] == []
    arrive(db, settings, "gpu", model, VLLM)
    found = client.get(f"/v1/models/{model}").json()
    assert (found["engines"], found["lacks"]) == (["vllm"], [])
    other = arrive(db, settings, "gpu", model, ECHO.without(EngineLack.ABORT, EngineLack.METRICS))
    one = client.get(f"/v1/workers/{other.id}").json()
    assert (one["engine"], one["lacks"]) == ("echo", ["abort", "metrics"])
    found = client.get("/v1/models").json()["data"][0]
    assert (found["engines"], found["lacks"]) == (["echo", "vllm"], ["abort", "metrics"])
    db.run(work.mark, other, "gone", settings)
    assert client.get(f"/v1/models/{model}").json()["lacks"] == [], "of live workers alone"


def test_who_is_silent_is_lost_and_who_said_goodbye_is_gone(
    client: httpx.Client, db: Database, settings: Settings, model: str
) -> None:
    worker = arrive(db, settings, "gpu", model)
    silence(db, round(settings.worker_gone_seconds / 3))
    assert states(client) == {str(worker.id): "ready"}
    silence(db, round(settings.worker_gone_seconds))
    lost = client.get(f"/v1/workers/{worker.id}").json()
    assert (lost["state"], lost["load"]) == ("lost", None)
    assert seconds_in(lost["trouble"], "Nothing was heard of it for # s: ") > settings.worker_gone_seconds
    db.run(work.mark, worker, "gone", settings)
    assert states(client) == {}
    assert states(client, gone=True) == {str(worker.id): "gone"}
    silence(db, 86_400)
    db.run(work.forget)
    error(client.get(f"/v1/workers/{worker.id}"), 404)


def test_what_is_wrong_with_a_worker_is_a_sentence(
    client: httpx.Client, db: Database, settings: Settings, model: str
) -> None:
    def trouble() -> str | None:
        return client.get(f"/v1/workers/{worker.id}").json()["trouble"]

    worker = arrive(db, settings, "gpu", model)
    assert trouble() is None
    db.run(work.mark, worker, "starting", settings, EngineTrouble(2, "ValueError: no such folder"))
    assert trouble() == "Its engine did not start, 2 times in a row: ValueError: no such folder"
    silence(db, 30, "beaten_at")
    assert seconds_in(trouble(), "It reports its load, but has not beaten for # s: others take over its work.") >= 30


def test_an_order_stands_until_the_worker_has_done_it(
    client: httpx.Client, db: Database, settings: Settings, model: str
) -> None:
    worker = arrive(db, settings, "gpu", model)

    def order(what: str) -> tuple[str, list[str]]:
        now = client.post(f"/v1/workers/{worker.id}/{what}").json()
        return now["state"], now["orders"]

    def heard() -> WorkerOrders:
        return db.run(work.beat, worker, [], settings).orders

    assert heard() == WorkerOrders()
    assert order("drain") == ("draining", ["drain"])
    assert heard() == WorkerOrders(drain=True)
    db.run(work.mark, worker, "drained", settings)
    assert order("drain") == ("drained", [])
    db.run(ingresses.pulse, worker, Load(True, 1, 0, 8, "slots", 0.0))
    assert order("drain") == ("draining", []), "a call is inside"
    assert client.get("/v1/models").json()["data"][0]["live_workers"] == 0
    assert order("undrain") == ("draining", ["undrain"])
    db.run(work.mark, worker, "ready", settings)
    assert order("restart") == order("restart") == ("ready", ["restart"])
    assert heard() == WorkerOrders(restart=1), "asked again before it is done, it is the same"
    for _ in range(2):
        db.run(work.restarted, worker, 1)
    assert order("restart") == ("ready", ["restart"])
    assert heard() == WorkerOrders(restart=2)


def test_orders_are_in_the_audit_once_each(client: httpx.Client, db: Database, settings: Settings, model: str) -> None:
    worker = arrive(db, settings, "gpu", model)
    for what in ("drain", "drain", "undrain", "undrain", "restart", "restart"):
        assert client.post(f"/v1/workers/{worker.id}/{what}").status_code == 200
    rows = client.get("/v1/admin/audit", params={"limit": 3}).json()["data"]
    assert [row["action"] for row in rows] == ["worker.restarted", "worker.undrained", "worker.drained"]
    assert {(row["target"], row["actor"]["type"]) for row in rows} == {(str(worker.id), "api_key")}
    assert rows[0]["details"] == {"host": worker.host, "model": model}


@pytest.mark.parametrize(
    ("kind", "state", "order", "why"),
    [
        ("keeper", "ready", "drain", "A keeper takes no orders"),
        ("io", "ready", "restart", "Only a gpu worker has an engine"),
        ("gpu", "gone", "undrain", "has ended"),
        ("gpu", "draining", "drain", "is about to end"),
    ],
)
def test_an_order_that_nobody_could_obey_is_a_409(
    client: httpx.Client, db: Database, settings: Settings, kind: str, state: str, order: str, why: str
) -> None:
    worker = arrive(db, settings, kind, "tiny" if kind == "gpu" else None)
    db.run(work.mark, worker, state, settings)
    refused = error(client.post(f"/v1/workers/{worker.id}/{order}"), 409)
    assert why in refused["message"]
    assert db.run(work.beat, worker, [], settings).orders == WorkerOrders()


def test_an_unknown_worker_is_a_404(client: httpx.Client) -> None:
    for id in (str(uuid4()), "x", "0"):
        assert error(client.get(f"/v1/workers/{id}"), 404)["message"] == f"No such worker: {id!r}."
        error(client.post(f"/v1/workers/{id}/drain"), 404)
