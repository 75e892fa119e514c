"""The matrix: every route with every kind of key; what it may, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
from api import documented
from api.live import KEY, create, error, http, serving, upload
from sqlalchemy import text

from penstock.domain.accounts.access import ALL, Role, Scope
from penstock.service.admin import keys
from penstock.service.core.transaction import Database
from penstock.settings import Settings
from penstock.store.engine import sync_engine

Route = tuple[str, str]
IDS = {
    "file_id": "file",
    "batch_id": "batch",
    "job_id": "job",
    "endpoint_id": "endpoint",
    "tenant_id": "tenant",
    "upload_id": "upload",
    "eval_id": "eval",
    "run_id": "run",
}
OWNED = ("file_id", "upload_id", "batch_id", "endpoint_id", "eval_id")


@dataclass(frozen=True)
class Place:
    """A live API, every route of its OpenAPI page that needs a key, and the ids of one tenant's things."""

    client: httpx.Client
    """Without a key."""
    db: Database
    routes: list[Route]
    ids: dict[str, str]

    def key(self, **more: Any) -> str:
        """A new key of the tenant that owns the things."""
        return self.db.run(keys.create, keys.BOOTSTRAP_TENANT, "matrix", **more)[1]

    def ask(self, route: Route, key: str | None) -> httpx.Response:
        """One request without a body; ids are of things that are there, where there are any."""
        method, path = route
        for parameter, kind in IDS.items():
            path = path.replace("{" + parameter + "}", self.ids.get(kind, "x"))
        path = path.replace("{delivery_id}", "x").replace("{model}", "x").replace("{key_id}", "x")
        path = path.replace("{erasure_id}", "x").replace("{worker_id}", "x").replace("{comparison_id}", "x")
        path = path.replace("{version_id}", "x@v1").replace("{alias_id}", "x@canary").replace("{pool_name}", "x")
        path = path.replace("{ensemble}", "x")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        with self.client.stream(method, path, headers=headers) as answer:
            if not answer.headers.get("content-type", "").startswith("text/event-stream") or method == "HEAD":
                answer.read()  # a stream of events has no end while its batch has none
        documented.check(answer)
        return answer


@pytest.fixture(scope="module")
def place(shared_database_url: str, valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    settings = Settings(
        database_url=shared_database_url,
        redis_url=valkey_url,
        blob_url=f"file://{tmp_path_factory.mktemp('blobs')}",
        bootstrap_key=KEY,
    )
    engine = sync_engine(shared_database_url, connections=2)
    with serving(settings) as url, http(url) as client:
        page = client.get("/openapi.json").json()["paths"]
        routes = [(method.upper(), path) for path, methods in page.items() for method in methods if path[:4] == "/v1/"]
        routes.append(("POST", "/tokenize"))
        file = upload(client)["id"]
        ids = {"file": file, "batch": create(client, file)["id"]}
        new = {"filename": "in.jsonl", "purpose": "batch", "bytes": 3, "mime_type": "application/jsonl"}
        ids["upload"] = client.post("/v1/uploads", json=new).json()["id"]
        ids["tenant"] = keys.BOOTSTRAP_TENANT
        new = {"name": "matrix", "input_file_id": file, "scorers": [{"type": "regex", "name": "any", "pattern": "."}]}
        ids["eval"] = client.post("/v1/evals", json=new).json()["id"]
        ids["run"] = client.post(f"/v1/evals/{ids['eval']}/runs", json={"model": "tiny"}).json()["id"]
        ids["endpoint"] = client.post("/v1/webhook_endpoints", json={"url": "https://93.184.215.14/x"}).json()["id"]
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as nobody:
            yield Place(nobody, Database(engine, lambda hints: None), routes, ids)
    engine.dispose()


def test_there_are_routes_of_every_scope_and_for_operators(place: Place) -> None:
    assert len(place.routes) > 40
    assert {scope_of(path) for _, path in place.routes} == {None, *Scope}
    assert sum(is_admin(route) for route in place.routes) >= 8


def test_no_key_and_every_key_that_is_none_any_more_is_a_401_everywhere(
    place: Place, subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.service.calls.api_key_cache._LATE_SECONDS", 0.0)
    id, revoked = place.db.run(keys.create, keys.BOOTSTRAP_TENANT, "revoked")
    place.db.run(keys.revoke, keys.BOOTSTRAP_TENANT, id)
    expired = place.key(life=timedelta(microseconds=1))
    for route in place.routes:
        for what, key in (("no key", None), ("wrong", "sk-penstock-wrong"), ("revoked", revoked), ("expired", expired)):
            with subtests.test(route=route, key=what):
                error(place.ask(route, key), 401)


def scope_of(path: str) -> Scope | None:
    """What the documentation says, in other words than the code: the first part of a path that names a thing."""
    part = path.removeprefix("/v1/").split("/")[0]
    if part in ("admin", "workers", "pools", "ensembles", "model_versions", "model_aliases"):
        return None
    if part in ("batches", "jobs", "evals", "usage", "organization"):
        return Scope.BATCHES
    return {"files": Scope.FILES, "uploads": Scope.FILES, "models": None, "limits": None}.get(
        part, Scope.WEBHOOKS if "webhook" in part else Scope.INFERENCE
    )


def is_admin(route: Route) -> bool:
    """Whether only an operator's key may ask this."""
    writes = route[0] != "GET" and route[1].startswith(("/v1/model_versions", "/v1/model_aliases"))
    return writes or route[1].startswith(("/v1/admin", "/v1/workers", "/v1/pools", "/v1/ensembles"))


@pytest.mark.parametrize("role", [Role.TENANT, Role.VIEWER])
def test_what_is_an_operators_is_a_403_for_every_other_key(place: Place, role: Role, subtests: pytest.Subtests) -> None:
    key = place.key(role=role)
    for route in filter(is_admin, place.routes):
        with subtests.test(route=route):
            assert error(place.ask(route, key), 403)["code"] == "operator_only"


@pytest.mark.parametrize("scopes", [ALL, frozenset({Scope.FILES})])
def test_an_operator_reads_all_that_is_an_operators_whatever_its_scopes(
    place: Place, scopes: frozenset[Scope], subtests: pytest.Subtests
) -> None:
    key = place.key(role=Role.OPERATOR, scopes=scopes)
    for route in filter(is_admin, place.routes):
        with subtests.test(route=route):
            assert place.ask(route, key).status_code in (200, 400, 404), "400: a body is needed"


@pytest.mark.parametrize("scope", Scope)
def test_a_key_without_a_scope_is_told_so_there_and_nowhere_else(
    place: Place, scope: Scope, subtests: pytest.Subtests
) -> None:
    key = place.key(scopes=ALL - {scope})
    for route in place.routes:
        with subtests.test(route=route):
            if scope_of(route[1]) is scope:
                assert error(place.ask(route, key), 403)["code"] == "insufficient_scope"
            elif route[0] == "GET" and not is_admin(route):  # others would change what the next test looks at
                assert place.ask(route, key).status_code not in (401, 403, 500)


def test_a_viewer_reads_everything_and_changes_nothing(place: Place, subtests: pytest.Subtests) -> None:
    key = place.key(role=Role.VIEWER)
    for route in place.routes:
        if is_admin(route):
            continue
        with subtests.test(route=route):
            answer = place.ask(route, key)
            if route[0] == "GET":
                assert answer.status_code not in (401, 403, 500)
            else:
                assert error(answer, 403)["code"] == "read_only_key"
    with http(str(place.client.base_url)) as client:
        assert client.get(f"/v1/batches/{place.ids['batch']}").json()["status"] == "validating"
        assert client.get(f"/v1/uploads/{place.ids['upload']}").json()["status"] == "pending"
        assert client.get(f"/v1/evals/{place.ids['eval']}/runs/{place.ids['run']}").json()["status"] == "preparing"


def test_head_is_answered_as_get_is_without_a_body(place: Place, subtests: pytest.Subtests) -> None:
    key, few = place.key(), place.key(scopes=frozenset({Scope.FILES}))
    with http(str(place.client.base_url)) as client:
        assert client.head("/health/live").status_code == client.get("/health/live").status_code == 200
    for route in place.routes:
        with subtests.test(route=route):
            head = place.ask(("HEAD", route[1]), key)
            assert head.content == b""
            if route[0] == "GET":
                assert head.status_code == place.ask(route, key).status_code != 405
                assert place.ask(("HEAD", route[1]), few).status_code == place.ask(route, few).status_code
                assert place.ask(("HEAD", route[1]), None).status_code == 401
            refused = place.ask(("TRACE", route[1]), key)
            assert error(refused, 405)["code"] == "method_not_allowed"
            allowed = set(refused.headers["allow"].split(", "))
            assert route[0] in allowed
            assert ("GET" in allowed) == ("HEAD" in allowed)


@pytest.mark.parametrize("role", [Role.TENANT, Role.OPERATOR])
def test_another_tenant_finds_none_of_the_things(place: Place, role: Role, subtests: pytest.Subtests) -> None:
    _, key = place.db.run(keys.create, "foreign", "matrix", role)
    for route in place.routes:
        if any("{" + parameter + "}" in route[1] for parameter in OWNED):
            with subtests.test(route=route):
                assert place.ask(route, key).status_code in (400, 404), "400: a body is needed"


def test_a_key_that_has_expired_since_it_was_used_is_refused(place: Place) -> None:
    key = place.key(life=timedelta(days=1))
    assert place.ask(("GET", "/v1/models"), key).status_code == 200
    place.db.run(lambda tx: tx.conn.execute(text("update api_keys set expires_at = now() where expires_at > now()")))
    assert place.ask(("GET", "/v1/files"), key).status_code == 401
