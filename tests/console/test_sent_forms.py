"""Sent forms: one that is sent twice, by a double click or a page that is loaded again, is done once."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from api.live import KEY, http
from console.admin_desk import desk
from console.browser import Browser, opened
from console.test_tenants import secret_of
from sqlalchemy import text

import penstock.console
from penstock.console import form_route, session
from penstock.service.admin import keys, models, sent_forms
from penstock.service.admin.sent_forms import FormIdentity
from penstock.service.core.transaction import Database

TEMPLATES = Path(penstock.console.__file__).parent / "templates"
LIVE = {"batch_actions.html", "pool_now.html", "operator_parts.html"}
"""Made once for all who look, so they can't hold a token of one; what they ask may be asked twice, or names its own."""
NO_TOKEN = ("/bulk/ask')", "'/batches/new/' + file.id")
"""One only asks whether it is meant so; the other has a token of its own, which makes the batch."""
NEW_KEY = {"name": "nightly", "role": "tenant", "scopes": "files", "days": "", "models": ""}


def token_of(page: httpx.Response) -> str:
    """The token of a page's forms."""
    found = re.search(r'name="once" value="([^"]+)"', page.text)
    assert found, page.text
    return found[1]


def names_of_keys(url: str, tenant: str) -> list[str]:
    with http(url) as client:
        return [one["name"] for one in client.get("/v1/admin/api_keys", params={"tenant": tenant}).json()["data"]]


def test_each_form_that_changes_something_holds_a_token() -> None:
    without = []
    for file in sorted(TEMPLATES.glob("*.html")):
        page = file.read_text()
        asked = re.findall(r'<form[^>]*method="post".*?</form>', page, re.DOTALL)
        asked += re.findall(r"parts\.(?:act|ask)\(.*?\) *[%}]}", page)
        if file.name not in LIVE | {"parts.html", "login.html", "base.html"}:
            without += [(file.name, one) for one in asked if "once" not in one and "retry_form.html" not in one]
    assert [f"{name}: {form[:80]}" for name, form in without if not any(one in form for one in NO_TOKEN)] == []


def test_a_form_that_is_sent_twice_at_once_makes_one_key_and_shows_it_to_both(url: str, db: Database) -> None:
    db.run(keys.create, "twice", "first")
    with desk(url, KEY) as client, ThreadPoolExecutor(2) as two:
        form = NEW_KEY | {"once": token_of(client.get("/console/tenants/twice"))}
        sent = [two.submit(client.post, "/console/tenants/twice/keys", data=form) for _ in range(2)]
        first, second = (one.result() for one in sent)
        assert secret_of(first) == secret_of(second)
        assert second.headers["cache-control"] == "no-store"
        assert names_of_keys(url, "twice").count("nightly") == 1
        assert client.post("/console/tenants/twice/keys", data=form | {"name": "another"}).status_code == 200
        assert "another" in names_of_keys(url, "twice"), "what else is asked is another form"
        with desk(url, KEY) as other:
            theirs = other.post("/console/tenants/twice/keys", data=form)
            assert secret_of(theirs) != secret_of(first), "an answer is for the session that it was given to"


def test_what_is_kept_of_an_answer_can_not_be_read_in_the_database(url: str, db: Database) -> None:
    db.run(keys.create, "sealed", "first")
    with desk(url, KEY) as client:
        form = NEW_KEY | {"once": token_of(client.get("/console/tenants/sealed"))}
        value = secret_of(client.post("/console/tenants/sealed/keys", data=form))
    kept = db.run(lambda tx: tx.conn.execute(text("select * from sent_forms where answer is not null")).all())
    assert kept
    assert not any(secret in repr(one) for one in kept for secret in (value, form["once"]))


def test_tenants_endpoints_tests_and_samples_are_made_once(url: str, db: Database, tenant_key: str) -> None:
    db.run(models.add, "tiny")
    with desk(url, KEY) as client:
        form = {"name": "once-made", "once": token_of(client.get("/console/tenants"))}
        first, second = (client.post("/console/tenants", data=form) for _ in range(2))
        assert (first.status_code, first.headers["location"]) == (second.status_code, second.headers["location"])
        assert second.status_code == 303
    with desk(url, tenant_key) as client, http(url, tenant_key) as api:
        form = {"url": "https://93.184.215.14/once", "once": token_of(client.get("/console/webhooks"))}
        form["event_types"] = "batch.completed"
        assert secret_of(client.post("/console/webhooks", data=form)) == secret_of(
            client.post("/console/webhooks", data=form)
        )
        there = [one["url"] for one in api.get("/v1/webhook_endpoints").json()["data"]]
        assert there.count(form["url"]) == 1
        form = {"once": "a-token-of-this-test"}
        assert len({client.post("/console/jobs/sample", data=form).headers["location"] for _ in range(2)}) == 1
        file = {"file": ("in.jsonl", b"{}\n")}
        made = {
            client.post("/console/files?once=a-token-of-this-test", data={"purpose": "batch"}, files=file).headers[
                "location"
            ]
            for _ in range(2)
        }
        assert len(made) == 1, "a file is one upload, too"


def test_a_form_that_was_refused_may_be_sent_again(url: str) -> None:
    with desk(url, KEY) as client:
        form = {"name": "Not A Name", "once": token_of(client.get("/console/tenants"))}
        assert [client.post("/console/tenants", data=form).status_code for _ in range(2)] == [400, 400]
        assert client.post("/console/tenants", data=form | {"name": "a-name"}).status_code == 303


def test_a_form_whose_server_died_is_not_done_again(url: str, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form_route, "_MOST_SECONDS", 0.1)
    with desk(url, KEY) as client:
        body = "name=half-made&once=a-token-of-this-test"
        says = b"/console/tenants? " + body.encode()
        session = client.cookies["penstock_session"]
        db.run(sent_forms.take, FormIdentity(session, "a-token-of-this-test", says))
        answer = client.post(
            "/console/tenants", content=body, headers={"content-type": "application/x-www-form-urlencoded"}
        )
        assert (answer.status_code, "sent twice" in answer.text) == (409, True)
        assert client.get("/console/tenants/half-made").status_code == 404


def test_a_session_keeps_few_answers(url: str, db: Database) -> None:
    with desk(url, KEY) as client:
        for number in range(25):
            form = {"name": "a name that is refused", "once": f"a-token-of-this-test-{number}"}
            db.run(sent_forms.take, FormIdentity(client.cookies["penstock_session"], form["once"], b""))
        holder = FormIdentity(client.cookies["penstock_session"], "", b"").holder
        kept = db.run(
            lambda tx: tx.conn.execute(text("select count(*) from sent_forms where session = :s"), {"s": holder})
        )
        assert kept.scalar_one() == 20


@pytest.mark.parametrize("scripts", [True, False])
def test_a_double_click_makes_one_key_which_is_shown(chromium: Browser, url: str, db: Database, scripts: bool) -> None:
    tenant = f"clicked-{scripts}".lower()
    db.run(keys.create, tenant, "first")
    with opened(chromium, url, KEY, java_script_enabled=scripts) as page:
        page.goto(f"/console/tenants/{tenant}")
        page.get_by_label("What it is for").fill("double")
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.method))
        page.get_by_role("button", name="Make the key").dblclick()
        page.get_by_role("heading", name="A new API key").wait_for()
        with http(url, page.locator("#secret").inner_text()) as owner:
            assert owner.get("/v1/limits").status_code == 200
        assert not scripts or sent.count("POST") == 1
    assert names_of_keys(url, tenant).count("double") == 1


def test_a_form_that_was_refused_in_any_way_may_be_sent_again(
    url: str, db: Database, subtests: pytest.Subtests
) -> None:
    db.run(keys.create, "refused", "first")
    with desk(url, KEY) as client:
        for place, form, status in (
            ("/console/batches/none/failed/retry", {"scope": "zz", "page": "9999"}, 404),
            ("/console/batches/none/failed/retry", {"scope": "zz", "page": "9" * 5_000}, 404),
            ("/console/batches/none/failed/retry", {"scope": "zz", "line": "[" * 80_000}, 404),
            ("/console/webhooks/none/unknown", {}, 400),
        ):
            with subtests.test(place, form=repr(form)[:60]):
                sent = form | {"once": f"refused-{len(repr(form))}-of-a-page"}
                answers = [client.post(place, data=sent).status_code for _ in range(2)]
                assert answers == [status] * 2


def test_a_token_that_is_none_makes_no_header(url: str, subtests: pytest.Subtests) -> None:
    with desk(url, KEY) as client:
        for place in ("/console/batches/none/retry", "/console/batches/none/failed/retry", "/console/batches/new/none"):
            with subtests.test(place):
                form = {"once": "日本" * 10, "token": "日本" * 10, "act": "create", "scope": "all"}
                assert client.post(place, data=form).status_code == 404


def test_nobody_is_kept_out_by_the_cookies_of_others_or_breaks_anything_by_an_odd_origin(url: str) -> None:
    with desk(url, KEY) as client:
        ours = f"{session.COOKIE}={client.cookies[session.COOKIE]}"
        client.cookies.clear()
        for others in ('x={"a":1}', "path=1", "a/b=1; a,b=2", "user@host=x", "odd", "="):
            shown = client.get("/console/files", headers={"cookie": f"{others}; {ours}"})
            assert shown.status_code == 200, others
    for origin in ("http://[", "null", "http://[::1", "http://127.0.0.1@[/"):
        assert httpx.post(f"{url}/console/login", data={"key": KEY}, headers={"origin": origin}).status_code == 403
