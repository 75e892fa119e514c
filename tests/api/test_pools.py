"""`/v1/pools`: what an operator makes of them, and sees of their hosts and decisions."""

from __future__ import annotations

import uuid

import httpx
import pytest
from api.live import arrive, error

from penstock.domain.models.version import Definition
from penstock.domain.pools.decision import PoolDecision, Why
from penstock.domain.work.holder import Holder
from penstock.service.core.transaction import Database
from penstock.service.lifecycle import work
from penstock.service.models import versions
from penstock.service.pools import decisions, residents
from penstock.settings import Settings


@pytest.fixture
def api(client: httpx.Client, db: Database) -> httpx.Client:
    """An operator's client, and two versions that no worker serves."""
    for model in ("chat", "sql"):
        db.run(versions.add, model, Definition(f"/{model}", "vllm"))
    return client


def make(api: httpx.Client, **more: object) -> httpx.Response:
    return api.post("/v1/pools", json={"name": "a", "versions": [{"version": "chat"}, {"version": "sql@v1"}]} | more)


def host(db: Database) -> Holder:
    holder = Holder(uuid.uuid4(), "pool", None, "machine", 7, "a")
    db.run(work.register, holder, "ready", 0)
    return holder


def test_a_pool_is_made_looked_at_changed_and_removed(api: httpx.Client) -> None:
    made = make(api, device="l4", gpu_second="0.0012", terms={"bounds": {"priority": 60, "standard": None}})
    assert made.status_code == 200, made.text
    one = made.json()
    assert (one["id"], one["object"], one["kind"], one["device"]) == ("a", "pool", "shared", "l4")
    assert (one["region"], one["hosts"], one["gpu_second"]) == (None, [], "0.0012")
    assert one["terms"] == {
        "awake": 1,
        "share_lost": 0.1,
        "least_quantum_seconds": 20.0,
        "linger_seconds": 2.0,
        "bounds": {"priority": 60.0, "standard": None},
        "call_bound_seconds": 60.0,
        "most_switches_for_calls": 20,
    }
    assert [(each["version"], each["state"], each["waiting_tokens"]) for each in one["versions"]] == [
        ("chat@v1", "stopped", 0),
        ("sql@v1", "stopped", 0),
    ]
    assert api.get("/v1/pools").json()["data"] == [api.get("/v1/pools/a").json()] == [one]
    changed = api.patch("/v1/pools/a", json={"terms": {"awake": 2}, "device": None}).json()
    assert (changed["terms"]["awake"], changed["terms"]["bounds"]["priority"]) == (2, 60.0)
    assert (changed["device"], changed["gpu_second"]) == (None, "0.0012")
    fewer = api.patch("/v1/pools/a", json={"versions": [{"version": "sql", "on_demand": True}]}).json()
    assert [(each["version"], each["on_demand"]) for each in fewer["versions"]] == [("sql@v1", True)]
    assert error(make(api), 409)["message"] == "There is a pool 'a' already."
    assert api.delete("/v1/pools/a").json() == {"id": "a", "object": "pool", "deleted": True}
    assert error(api.get("/v1/pools/a"), 404)["code"] == "pool_not_found"
    acts = [row["action"] for row in api.get("/v1/admin/audit", params={"limit": 4}).json()["data"]]
    assert acts == ["pool.removed", "pool.changed", "pool.changed", "pool.created"]


REFUSED: list[tuple[dict[str, object], int, str]] = [
    ({"name": "A B"}, 400, "name"),
    ({"kind": "other"}, 400, "kind"),
    ({"versions": []}, 400, "versions"),
    ({"versions": [{"version": "nothing"}]}, 404, "version"),
    ({"versions": [{"version": "chat", "memory_bytes": 9}], "memory_bytes": 8}, 400, "terms.awake"),
    ({"terms": {"awake": 0}}, 400, "terms.awake"),
    ({"terms": {"awake": "1"}}, 400, "terms.awake"),
    ({"terms": {"colour": 1}}, 400, "terms.colour"),
    ({"terms": {"bounds": {"priority": 0}}}, 400, "terms.bounds.priority"),
    ({"gpu_second": "much"}, 400, "gpu_second"),
]


def test_what_can_not_be_a_pool_names_the_field(api: httpx.Client, subtests: pytest.Subtests) -> None:
    for more, status, param in REFUSED:
        with subtests.test(more=more):
            assert error(make(api, **more), status)["param"] == param
    assert api.get("/v1/pools").json()["data"] == []


def test_an_operator_steers_it_and_sees_hosts_and_decisions(
    api: httpx.Client, db: Database, settings: Settings
) -> None:
    make(api)
    holder = host(db)
    member = arrive(db, settings, "gpu", "chat")
    db.run(residents.put, holder.id, "chat", "awake", member.id)
    seen = api.get("/v1/pools/a").json()
    assert seen["hosts"][0]["residents"][0].pop("since") > 0
    assert seen["hosts"][0]["residents"] == [{"version": "chat@v1", "state": "awake", "worker_id": str(member.id)}]
    assert seen["versions"][0]["state"] == "awake"
    assert api.get("/v1/workers", params={"limit": 5}).json()["data"][1]["kind"] == "pool"
    assert api.post(f"/v1/workers/{holder.id}/drain").status_code == 200
    assert "Only a gpu worker" in error(api.post(f"/v1/workers/{holder.id}/restart"), 409)["message"]
    woken = api.post("/v1/pools/a/wake", json={"version": "sql"}).json()["versions"][1]
    assert woken["wake_asked_at"] is not None
    assert api.post("/v1/pools/a/pin", json={"version": "sql@v1"}).json()["versions"][1]["pinned"] is True
    refused = error(api.post("/v1/pools/a/pin", json={"version": "chat"}), 409)
    assert refused["message"] == "1 may be awake at once in pool 'a', and sql@v1 is pinned: unpin one first."
    assert api.post("/v1/pools/a/unpin", json={"version": "sql"}).json()["versions"][1]["pinned"] is False
    assert error(api.post("/v1/pools/a/wake", json={}), 400)["param"] == "version"
    assert error(api.delete("/v1/pools/a"), 409)["code"] == "pool_in_use"
    assert error(api.post("/v1/pools/a/cancel"), 409)["code"] == "nothing_to_cancel"
    for _ in range(3):
        db.run(
            decisions.begin, "a", holder.id, PoolDecision(Why.QUANTUM, "chat", "sql", {"sql": 2.0}), "restart", settings
        )
    assert api.post("/v1/pools/a/cancel").json()["state"] == "cancelled"
    page = api.get("/v1/pools/a/decisions", params={"limit": 2}).json()
    assert [(one["state"], one["comes"], one["scores"]) for one in page["data"]] == [
        ("cancelled", "sql", {"sql": 2.0}),
        ("failed", "sql", {"sql": 2.0}),
    ]
    rest = api.get("/v1/pools/a/decisions", params={"after": page["last_id"]}).json()
    assert (page["has_more"], len(rest["data"]), rest["has_more"]) == (True, 1, False)
    error(api.get("/v1/pools/a/decisions", params={"after": "x"}), 400)
