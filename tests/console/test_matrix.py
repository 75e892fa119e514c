"""The matrix: every route of the console with no session, a viewer's, a tenant's, a foreign tenant's, an operator's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest
from api.live import KEY, create, http, upload
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from penstock.console.app import create_console
from penstock.domain.accounts.access import Role
from penstock.service.admin import keys, models
from penstock.service.core.transaction import Database

OPEN = {"/console/static/{name}", "/console", "/console/", "/console/login", "/console/logout"}
"""Whoever comes may ask these."""
OURS = {"sec-fetch-site": "same-origin"}
OWNED = ("{id}", "{file}", "{endpoint}")
"""What stands for a thing of one tenant's, except below `/console/uploads`, where another word is."""


@dataclass(frozen=True)
class Place:
    """A console, its routes, and one tenant's things."""

    url: str
    db: Database
    routes: list[APIRoute]
    ids: dict[str, str]

    def all(self) -> list[tuple[str, str, APIRoute]]:
        """Each method and path, with ids of things that are there."""
        found = []
        for route in self.routes:
            path = route.path.replace("/{act}", "/cancel" if "/webhooks/" not in route.path else "/test")
            kind = next((kind for kind in self.ids if f"/{kind}/" in path), "")
            path = re.sub(r"\{(id|file|endpoint)\}", self.ids.get(kind, "x"), path)
            path = path.replace("{tenant}", keys.BOOTSTRAP_TENANT)
            found += [(method, re.sub(r"\{\w+\}", "x", path), route) for method in sorted(route.methods)]
        return found

    @contextmanager
    def as_of(self, key: str | None) -> Iterator[httpx.Client]:
        """A browser's requests, logged in with a key if there is one."""
        with httpx.Client(base_url=self.url, headers=OURS, timeout=30, trust_env=False) as client:
            if key is not None:
                assert client.post("/console/login", data={"key": key, "then": ""}).status_code == 303
            yield client

    def key(self, tenant: str, role: Role) -> str:
        """A new key."""
        return self.db.run(keys.create, tenant, "matrix", role)[1]


@pytest.fixture(scope="module")
def place(url: str, db: Database) -> Iterator[Place]:
    routes = [route for route in create_console(lambda: None).routes if isinstance(route, APIRoute)]  # type: ignore[arg-type, return-value]
    with http(url) as client:
        file = upload(client)["id"]
        db.run(models.add, "tiny")
        job = {"model": "tiny", "body": {"messages": [{"role": "user", "content": "hello"}]}}
        endpoint = client.post("/v1/webhook_endpoints", json={"url": "https://93.184.215.14/x"}).json()["id"]
        new = {"filename": "in.jsonl", "purpose": "batch", "bytes": 3, "mime_type": "application/jsonl"}
        ids = {
            "uploads": client.post("/v1/uploads", json=new).json()["id"],
            "batches/new": file,
            "batches": create(client, file)["id"],
            "jobs": client.post("/v1/jobs", json=job).json()["id"],
            "files": file,
            "webhooks": endpoint,
        }
        yield Place(url, db, [route for route in routes if route.path not in OPEN], ids)


def status(client: httpx.Client, method: str, path: str, **more: str) -> int:
    """The head of an answer: a stream has no end."""
    with client.stream(method, path, headers=more) as answer:
        return answer.status_code


def is_operators(route: APIRoute) -> bool:
    def needs(dependant: Dependant) -> bool:
        return getattr(dependant.call, "__name__", "") == "_operator" or any(map(needs, dependant.dependencies))

    return needs(route.dependant)


def test_there_are_routes_of_all_kinds(place: Place) -> None:
    assert len(place.routes) > 40
    assert sum(map(is_operators, place.routes)) > 10


def test_without_a_session_there_is_only_the_login(place: Place, subtests: pytest.Subtests) -> None:
    with place.as_of(None) as client:
        for method, path, _ in place.all():
            with subtests.test(method=method, path=path):
                answer = client.request(method, path)
                assert answer.status_code == 401
                if answer.text:  # what is no page says nothing at all
                    assert 'type="password"' in answer.text
                    assert not any(
                        id in re.sub(r'name="then" value="[^"]*"', "", answer.text) for id in place.ids.values()
                    )


def test_a_viewer_changes_nothing(place: Place, subtests: pytest.Subtests) -> None:
    with place.as_of(place.key(keys.BOOTSTRAP_TENANT, Role.VIEWER)) as client:
        for method, path, _ in place.all():
            if method != "GET":
                with subtests.test(method=method, path=path):
                    assert status(client, method, path) == 403


@pytest.mark.parametrize("role", [Role.VIEWER, Role.TENANT])
def test_what_is_an_operators_is_refused_to_others(place: Place, role: Role, subtests: pytest.Subtests) -> None:
    with place.as_of(place.key(keys.BOOTSTRAP_TENANT, role)) as client:
        for method, path, route in place.all():
            if is_operators(route):
                with subtests.test(method=method, path=path):
                    assert status(client, method, path) == 403


def test_another_tenant_finds_nothing(place: Place, subtests: pytest.Subtests) -> None:
    with place.as_of(place.key("stranger", Role.TENANT)) as client:
        for method, path, route in place.all():
            if any(one in route.path for one in OWNED) and not is_operators(route):
                with subtests.test(method=method, path=path):
                    assert status(client, method, path) in (400, 404)
        for listing in ("/console/batches", "/console/jobs", "/console/files", "/console/webhooks"):
            assert not any(id in client.get(listing).text for id in place.ids.values())


def test_an_operator_sees_every_page(place: Place, subtests: pytest.Subtests) -> None:
    with place.as_of(KEY) as client:
        for method, path, _ in place.all():
            if method == "GET" and not path.endswith(("/x", "/content")):
                with subtests.test(path=path):
                    assert status(client, method, path) in (200, 404, 410)


def test_no_form_of_another_site_is_taken(place: Place, subtests: pytest.Subtests) -> None:
    with place.as_of(KEY) as client:
        for method, path, _ in place.all():
            if method != "GET":
                with subtests.test(method=method, path=path):
                    assert status(client, method, path, **{"sec-fetch-site": "cross-site"}) == 403
