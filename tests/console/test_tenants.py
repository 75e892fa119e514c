"""Tenants: an operator makes one, gives it a key that is shown once, limits it, and erases it by its name."""

from __future__ import annotations

import re

import httpx
from api.live import KEY, http, log_lines
from console.admin_desk import HARM, desk, is_inert
from console.browser import Browser, opened
from console.looks import look

from penstock.service.admin import keys
from penstock.service.core.transaction import Database


def test_an_operator_makes_a_tenant_gives_it_a_key_limits_it_and_erases_it(chromium: Browser, url: str) -> None:
    with opened(chromium, url, KEY) as page:
        page.get_by_role("link", name="Tenants").click()
        page.get_by_label("New tenant").fill("Not A Name")
        page.get_by_role("button", name="Create").click()
        page.get_by_role("alert").wait_for()
        assert page.get_by_label("New tenant").input_value() == "Not A Name"
        look(page, "tenants-error")
        page.get_by_label("New tenant").fill("acme")
        page.get_by_role("button", name="Create").click()
        page.get_by_role("heading", name="acme").wait_for()

        page.get_by_label("What it is for").fill("nightly runs")
        page.get_by_role("button", name="Make the key").click()
        page.get_by_role("heading", name="A new API key").wait_for()
        value = page.locator("#secret").inner_text()
        assert value not in page.url
        look(page, "key-once")
        with http(url, value) as owner:
            assert owner.get("/v1/limits").status_code == 200
        page.get_by_role("link", name="I have it").click()
        page.get_by_role("link", name="nightly runs").wait_for()
        assert value not in page.content()

        page.get_by_label("Budget a month").fill("ten")
        page.locator("#files").fill("7")
        page.get_by_role("button", name="Set limits").click()
        page.get_by_role("alert").wait_for()
        assert page.locator("#files").input_value() == "7", "what was typed is kept"
        page.get_by_label("Budget a month").fill("250.00")
        page.get_by_role("button", name="Set limits").click()
        page.get_by_text("The limits are in force within seconds.").wait_for()
        with http(url) as operator:
            given = operator.get("/v1/admin/tenants/acme/limits").json()
            assert (given["limits"], given["monthly_budget"]) == ({"files": 7}, "250")
        look(page, "tenant-full")

        page.get_by_role("link", name="nightly runs").click()
        look(page, "tenant-key")
        page.get_by_role("button", name="Rotate it").click()
        page.get_by_role("heading", name="A new API key").wait_for()
        assert page.locator("#secret").inner_text() != value
        page.get_by_role("link", name="I have it").click()
        page.get_by_role("link", name="nightly runs").last.click()
        page.get_by_text("Revoke…").click()
        page.get_by_role("button", name="Revoke it").click()
        page.get_by_text("The key is not valid any more.").wait_for()

        page.get_by_label("Type acme to erase it").fill("acne")
        page.get_by_role("button", name="Erase it").click()
        page.get_by_text("Nothing was erased").wait_for()
        page.get_by_label("Type acme to erase it").fill("acme")
        page.get_by_role("button", name="Erase it").click()
        page.get_by_role("heading", name="Erasure of acme").wait_for()
        look(page, "erasure")


def test_a_key_is_in_its_own_answer_only(url: str, db: Database) -> None:
    id, _ = db.run(keys.create, "once", "first")
    with desk(url, KEY) as client:
        form = {"name": "shown once", "role": "tenant"}
        assert client.post("/console/tenants/once/keys", data=form).status_code == 400, "no scope is not every scope"
        made = client.post("/console/tenants/once/keys", data=form | {"scopes": "files"})
        value = secret_of(made)
        assert (made.status_code, made.headers["cache-control"]) == (200, "no-store")
        for path in ("/console/tenants/once", f"/console/tenants/once/keys/{id}", "/console/audit?tenant=once"):
            assert value not in client.get(path).text
        assert not any(value in line for line in log_lines())
        rotated = client.post(f"/console/tenants/once/keys/{id}/rotate", data={"hours": "0"})
        assert rotated.headers["cache-control"] == "no-store"
        assert secret_of(rotated) != value


def test_pages_of_tenants_are_for_operators_only(url: str, db: Database, tenant_key: str, viewer_key: str) -> None:
    id, _ = db.run(keys.create, "other", "theirs")
    for key in (tenant_key, viewer_key):
        with desk(url, key) as client:
            assert "Tenants" not in client.get("/console/batches").text
            for path in ("/tenants", "/tenants/other", f"/tenants/other/keys/{id}", "/erasures/ers_1"):
                assert client.get(f"/console{path}").status_code == 403, path
            for path in ("", "/other/keys", "/other/limits", "/other/change", "/other/erase"):
                answer = client.post(f"/console/tenants{path}", data={"name": "other", "role": "operator"})
                assert answer.status_code == 403, path
            for act in ("rotate", "revoke", "limits"):
                assert client.post(f"/console/tenants/other/keys/{id}/{act}").status_code == 403, act
    with desk(url, KEY) as client:
        form = {"name": "x", "role": "tenant", "scopes": "files"}
        assert client.get("/console/tenants/nobody").status_code == 404
        assert client.post("/console/tenants/nobody/keys", data=form).status_code == 404
        assert client.get("/console/tenants/nobody").status_code == 404, "nobody made it by the way"


def test_names_that_mean_harm_stay_text(url: str, db: Database) -> None:
    with desk(url, KEY) as client:
        for name in HARM[:3]:  # a name with controls is refused
            id, _ = db.run(keys.create, "harmed", name)
            for path in ("/console/tenants/harmed", f"/console/tenants/harmed/keys/{id}"):
                page = client.get(path)
                assert page.status_code == 200
                assert is_inert(page.text, name)


def test_only_what_was_changed_is_set(url: str, db: Database) -> None:
    db.run(keys.create, "steady", "one")
    with desk(url, KEY) as client, http(url) as operator:
        operator.post("/v1/admin/tenants/steady/limits", json={"files": 5}).raise_for_status()
        sent = {"files": "", "was_files": "", "open_batches": "1,000", "was_open_batches": ""}
        assert client.post("/console/tenants/steady/limits", data=sent).status_code == 303
        given = operator.get("/v1/admin/tenants/steady/limits").json()["limits"]
        assert given == {"files": 5, "open_batches": 1000}
        sent = {"files": "", "was_files": "5"}
        assert client.post("/console/tenants/steady/limits", data=sent).status_code == 303
        assert operator.get("/v1/admin/tenants/steady/limits").json()["limits"] == {"open_batches": 1000}
        wrong = client.post("/console/tenants/steady/limits", data={"files": "<many>", "was_files": ""})
        assert wrong.status_code == 400
        assert 'value="&lt;many&gt;"' in wrong.text


def secret_of(page: httpx.Response) -> str:
    """What a page shows once."""
    found = re.search(r'id="secret"[^>]*>([^<]+)<', page.text)
    assert found, page.text
    return found[1]
