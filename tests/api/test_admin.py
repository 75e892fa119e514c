"""`/v1/admin`: what an operator's key manages, and what it can't give."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import httpx
import pytest
from api.live import KEY, chat, error, http, serving, upload

from penstock.blobs.store import Blobs
from penstock.domain.accounts.access import Role, Scope
from penstock.service.admin import keys
from penstock.service.control import erasure
from penstock.service.core.transaction import Database
from penstock.settings import Settings


def make(client: httpx.Client, **more: Any) -> dict[str, Any]:
    """Make a key over HTTP."""
    answer = client.post("/v1/admin/api_keys", json={"name": "made", "tenant": "acme"} | more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_first_key_is_an_operators_and_a_full_key_of_the_first_tenant(client: httpx.Client, model: str) -> None:
    [first] = client.get("/v1/admin/api_keys").json()["data"]
    assert (first["role"], first["tenant"], first["redacted_value"]) == (
        "operator",
        "default",
        f"sk-penstock-…{KEY[-4:]}",
    )
    file = upload(client)["id"]
    assert client.post("/v1/jobs", json={"model": model, "body": chat()}).status_code == 200
    assert client.delete(f"/v1/files/{file}").status_code == 200


def test_a_key_is_told_once_and_works_until_it_is_revoked(url: str, client: httpx.Client) -> None:
    made = make(client, scopes=["files"], expires_in_seconds=3600)
    assert (made["role"], made["scopes"], made["tenant"]) == ("tenant", ["files"], "acme")
    assert made["expires_at"] - made["created_at"] == 3600
    value = made.pop("value")
    seen = client.get(f"/v1/admin/api_keys/{made['id']}")
    assert seen.json() == made
    assert value not in client.get("/v1/admin/api_keys").text
    with http(url, value) as one:
        assert one.get("/v1/files").json()["data"] == []
        assert error(one.get("/v1/batches"), 403)["code"] == "insufficient_scope"
        deleted = client.delete(f"/v1/admin/api_keys/{made['id']}").json()
        assert deleted == {"id": made["id"], "object": "organization.admin_api_key.deleted", "deleted": True}
        error(one.get("/v1/files"), 401)
    error(client.delete(f"/v1/admin/api_keys/{made['id']}"), 404)
    assert client.get(f"/v1/admin/api_keys/{made['id']}").json()["revoked_at"] >= made["created_at"]


def test_lists_have_pages_and_a_tenants_keys_are_found(client: httpx.Client) -> None:
    made = [make(client, tenant=f"t{n % 2}")["id"] for n in range(5)]
    found: list[str] = []
    more, page = True, {}
    while more:
        page = client.get("/v1/admin/api_keys", params={"limit": 2} | ({"after": found[-1]} if found else {})).json()
        assert (page["object"], page["first_id"], page["last_id"]) == (
            "list",
            page["data"][0]["id"],
            page["data"][-1]["id"],
        )
        found += [one["id"] for one in page["data"]]
        more = page["has_more"]
    assert found[1:] == made
    of_one = client.get("/v1/admin/api_keys", params={"tenant": "t1"}).json()["data"]
    assert [one["id"] for one in of_one] == made[1::2]
    error(client.get("/v1/admin/api_keys", params={"after": "key_none"}), 404)
    error(client.get("/v1/admin/api_keys", params={"limit": 101}), 400)
    names = [one["id"] for one in client.get("/v1/admin/tenants").json()["data"]]
    assert names == ["default", "t0", "t1"]
    page = client.get("/v1/admin/tenants", params={"after": "default", "limit": 1}).json()
    assert ([one["id"] for one in page["data"]], page["has_more"]) == (["t0"], True)


def test_a_tenant_is_made_once_and_changed(client: httpx.Client) -> None:
    made = client.post("/v1/admin/tenants", json={"name": "acme"}).json()
    assert (made["id"], made["object"], made["weight"], made["cache"]) == ("acme", "tenant", 1.0, False)
    error(client.post("/v1/admin/tenants", json={"name": "acme"}), 409)
    assert error(client.post("/v1/admin/tenants", json={"name": "../etc"}), 400)["param"] == "name"
    changed = client.post("/v1/admin/tenants/acme", json={"weight": 2.5}).json()
    assert changed == made | {"weight": 2.5}
    kept = client.post("/v1/admin/tenants/acme", json={"batch_retention_days": 30, "file_retention_days": 7}).json()
    assert kept == changed | {"batch_retention_days": 30, "file_retention_days": 7}
    back = client.post("/v1/admin/tenants/acme", json={"batch_retention_days": None}).json()
    assert back == kept | {"batch_retention_days": None}, "null is the platform's time again, what is left out stays"
    for days in (0, 3_651, 1.5, "7"):
        refused = error(client.post("/v1/admin/tenants/acme", json={"file_retention_days": days}), 400)
        assert refused["param"] == "file_retention_days"
    [row] = client.get("/v1/admin/audit", params={"action": "tenant.updated", "limit": 1}).json()["data"]
    assert (row["tenant"], row["details"]) == ("acme", {"batch_retention_days": None})
    assert client.post("/v1/admin/tenants/acme", json={"cache": True}).json() == back | {"cache": True}
    assert error(client.post("/v1/admin/tenants/acme", json={"weight": 0}), 400)["param"] == "weight"
    error(client.post("/v1/admin/tenants/none", json={"weight": 2}), 404)
    error(client.get("/v1/admin/tenants/none"), 404)


@pytest.mark.parametrize(
    "more",
    [
        {"scopes": ["files", "webhooks"], "expires_in_seconds": 60},
        {"expires_in_seconds": 60},
        {"scopes": ["files"], "role": "viewer"},
        {"scopes": ["files"], "role": "viewer", "expires_in_seconds": 86_400},
    ],
)
def test_a_key_gives_no_more_than_it_has(url: str, db: Database, more: dict[str, Any]) -> None:
    narrow = frozenset({Scope.FILES})
    _, key = db.run(keys.create, "default", "narrow", Role.OPERATOR, narrow, timedelta(hours=1))
    with http(url, key) as maker:
        refused = maker.post("/v1/admin/api_keys", json={"name": "more", "tenant": "acme"} | more)
        assert error(refused, 403)["code"] == "beyond_own_rights"
        assert make(maker, scopes=["files"], role="operator", expires_in_seconds=60)["role"] == "operator"
        assert [one["name"] for one in maker.get("/v1/admin/api_keys", params={"tenant": "acme"}).json()["data"]] == [
            "made"
        ], "what was refused is not there"


def test_bodies_are_checked_and_the_page_describes_them(client: httpx.Client) -> None:
    for body in ({}, {"name": "x"}, {"name": "x", "tenant": "acme", "role": "root"}, {"name": "", "tenant": "a"}):
        error(client.post("/v1/admin/api_keys", json=body), 400)
    error(client.post("/v1/admin/api_keys", json={"name": "x", "tenant": "acme", "scopes": []}), 400)
    page = client.get("/openapi.json").json()
    assert {"CreateApiKey", "CreateTenant", "ChangeTenant"} <= set(page["components"]["schemas"])


def test_an_operator_sees_only_its_own_tenants_things_on_other_routes(url: str, client: httpx.Client) -> None:
    with http(url, make(client)["value"]) as acme:
        file = upload(acme)["id"]
    error(client.get(f"/v1/files/{file}"), 404)
    assert client.get("/v1/files").json()["data"] == []


def test_a_key_that_was_revoked_is_no_operators_at_once(url: str, client: httpx.Client) -> None:
    made = make(client, tenant="default", role="operator")
    with http(url, made["value"]) as other:
        assert other.get("/v1/admin/tenants").status_code == 200
        began = time.monotonic()
        client.delete(f"/v1/admin/api_keys/{made['id']}")
        error(other.get("/v1/admin/tenants"), 401)
        assert time.monotonic() - began < 5, "sooner than a key is forgotten"


def test_a_rotated_key_works_beside_its_successor_until_the_overlap_ends(url: str, client: httpx.Client) -> None:
    old = make(client, scopes=["files"], models=["tiny"], role="viewer")
    new = client.post(f"/v1/admin/api_keys/{old['id']}/rotate").json()
    same = ("tenant", "name", "role", "scopes", "models", "expires_at")
    assert {name: new[name] for name in same} == {name: old[name] for name in same}
    assert new["value"] != old["value"]
    seen = client.get(f"/v1/admin/api_keys/{old['id']}").json()
    assert seen["replaced_by"] == new["id"]
    assert 86_300 < seen["expires_at"] - old["created_at"] < 86_500
    for one in (old, new):
        with http(url, one["value"]) as user:
            assert user.get("/v1/files").status_code == 200
    assert "can't be rotated" in error(client.post(f"/v1/admin/api_keys/{old['id']}/rotate"), 409)["message"]
    at_once = client.post(f"/v1/admin/api_keys/{new['id']}/rotate", json={"overlap_seconds": 0})
    assert at_once.status_code == 200
    with http(url, new["value"]) as user:
        error(user.get("/v1/files"), 401)
    error(client.post("/v1/admin/api_keys/key_none/rotate"), 404)


def test_an_overlap_makes_no_key_live_longer_and_its_successor_ends_with_it(client: httpx.Client) -> None:
    old = make(client, expires_in_seconds=3600)
    new = client.post(f"/v1/admin/api_keys/{old['id']}/rotate", json={"overlap_seconds": 86_400}).json()
    assert new["expires_at"] == old["expires_at"]
    assert client.get(f"/v1/admin/api_keys/{old['id']}").json()["expires_at"] == old["expires_at"]


def test_a_key_rotates_no_key_that_has_more(url: str, client: httpx.Client, db: Database) -> None:
    narrow = frozenset({"tiny"})
    id, key = db.run(keys.create, "default", "narrow", Role.OPERATOR, models=narrow)
    with http(url, key) as maker:
        for more in ({"models": ["tiny", "secret"]}, {}):
            body = {"name": "more", "tenant": "acme"} | more
            assert error(maker.post("/v1/admin/api_keys", json=body), 403)["code"] == "beyond_own_rights"
            stronger = make(client, **more)["id"]
            rotated = maker.post(f"/v1/admin/api_keys/{stronger}/rotate", json={"overlap_seconds": 0})
            assert error(rotated, 403)["code"] == "beyond_own_rights"
            assert client.get(f"/v1/admin/api_keys/{stronger}").json()["replaced_by"] is None
        mine = maker.post(f"/v1/admin/api_keys/{id}/rotate", json={"overlap_seconds": 0})
        assert mine.json()["models"] == ["tiny"]


def test_the_last_use_is_seen(settings: Settings, db: Database) -> None:
    with serving(settings) as url, http(url) as client:
        made = make(client)
        assert made["last_used_at"] is None
        with http(url, made["value"]) as user:
            for _ in range(3):
                user.get("/v1/files")
    used = {key.name: key.last_used_at for key in db.run(keys.page, None)}  # the API wrote it at its end
    assert used["made"] is not None
    assert used["bootstrap"] is not None


def test_a_tenant_is_erased_and_how_far_that_is_can_be_looked_at(
    url: str, client: httpx.Client, settings: Settings, db: Database
) -> None:
    key = make(client)["value"]
    with http(url, key) as one:
        file = upload(one)["id"]
        begun = client.delete("/v1/admin/tenants/acme")
        assert begun.status_code == 202
        assert (begun.json()["tenant"], begun.json()["status"], begun.json()["removed"]) == ("acme", "in_progress", {})
        error(one.get(f"/v1/files/{file}"), 401)
    id = begun.json()["id"]
    assert client.delete("/v1/admin/tenants/acme").json()["id"] == id
    assert client.get("/v1/admin/tenants/acme").json()["erasure_id"] == id
    assert error(client.post("/v1/admin/api_keys", json={"name": "late", "tenant": "acme"}), 409)
    quick = settings.model_copy(update={"key_cache_seconds": -1.0})
    end = time.monotonic() + 30
    while (now := client.get(f"/v1/admin/erasures/{id}").json())["status"] == "in_progress":
        assert time.monotonic() < end
        erasure.advance(db, Blobs(settings.blob_url), id, quick, threading.Event())
    assert (now["tenant"], now["removed"]["files"], now["removed"]["bytes"]) == (None, 1, 3)
    error(client.get("/v1/admin/tenants/acme"), 404)
    error(client.delete("/v1/admin/tenants/acme"), 404)
    error(client.get("/v1/admin/erasures/none"), 404)
    assert "acme" not in client.get("/v1/admin/audit").text
    [row] = client.get("/v1/admin/audit", params={"action": "tenant.erased"}).json()["data"]
    assert (row["target"], row["tenant"], row["details"]) == (id, "", now["removed"])
    assert (row["actor"]["type"], row["request_id"]) == ("api_key", begun.headers["x-request-id"])


def test_the_first_tenant_and_ones_own_are_not_erased(url: str, client: httpx.Client) -> None:
    assert "own tenant" in error(client.delete("/v1/admin/tenants/default"), 400)["message"]
    with http(url, make(client, role="operator")["value"]) as one:
        assert "its own tenant" in error(one.delete("/v1/admin/tenants/acme"), 400)["message"]
        assert one.get("/v1/admin/tenants/acme").json()["erasure_id"] is None
