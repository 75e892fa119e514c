"""Logging in: a key is typed in once, a cookie stands for it, and it ends with the key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from api.live import KEY
from console.browser import Browser, opened
from console.looks import look

from penstock.service.admin import keys
from penstock.service.core.transaction import Database

OURS = {"sec-fetch-site": "same-origin"}


def test_a_person_logs_in_sees_their_batches_and_logs_out(chromium: Browser, url: str, tenant_key: str) -> None:
    with opened(chromium, url) as page:
        page.goto("/console/batches?q=lane:flex")
        look(page, "login")
        page.get_by_label("API key").fill(tenant_key)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("heading", name="Batches", exact=True).wait_for()
        assert page.url == f"{url}/console/batches?q=lane:flex"
        page.goto("/console/batches")
        look(page, "batches-empty")
        page.goto("/console/batches/batch_nothing")
        page.get_by_role("alert").wait_for()
        look(page, "error")
        page.get_by_role("button", name="Log out").click()
        page.get_by_label("API key").wait_for()
        page.goto("/console/batches")
        page.get_by_label("API key").wait_for()


def test_a_wrong_key_opens_nothing(url: str) -> None:
    with httpx.Client(base_url=url, headers=OURS) as client:
        answer = client.post("/console/login", data={"key": "sk-penstock-wrong", "then": ""})
        assert answer.status_code == 401
        assert "This key is not valid" in answer.text
        assert "set-cookie" not in answer.headers


@contextmanager
def logged_in(url: str, key: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers=OURS) as client:
        answer = client.post("/console/login", data={"key": key, "then": "/jobs"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/jobs")
        assert "HttpOnly" in answer.headers["set-cookie"]
        assert "SameSite=lax" in answer.headers["set-cookie"]
        yield client


def test_the_session_of_a_revoked_key_is_over_at_once(url: str, db: Database) -> None:
    id, key = db.run(keys.create, "team-b", "short-lived")
    with logged_in(url, key) as client:
        assert "Log out" in client.get("/console/batches").text
        db.run(keys.revoke, "team-b", id)
        assert "Log out" not in client.get("/console/batches").text


def test_the_api_never_takes_the_cookie(url: str) -> None:
    with logged_in(url, KEY) as client:
        assert client.get("/v1/batches").status_code == 401


def test_a_form_of_another_site_does_nothing(url: str, tenant_key: str) -> None:
    with logged_in(url, tenant_key) as client:
        for headers in (
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site", "origin": url},
        ):
            assert client.post("/console/logout", headers=headers).status_code == 403
        del client.headers["sec-fetch-site"]
        assert client.post("/console/logout").status_code == 403
        assert client.post("/console/logout", headers={"origin": "null"}).status_code == 403
        assert "Log out" in client.get("/console/batches").text
        assert client.post("/console/logout", headers={"origin": url}).status_code == 303
        assert "Log out" not in client.get("/console/batches").text
