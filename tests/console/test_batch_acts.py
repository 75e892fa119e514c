"""What is done to batches without scripts: filters, many at once, new terms, downloads; and who may do none of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from api.live import create, upload
from console.batch_world import a_job, begun, http, logged_in, models, worked
from console.browser import Browser, opened
from console.looks import look

from penstock.service.admin import keys
from penstock.service.core.transaction import Database
from penstock.service.ensembles import ensembles
from penstock.settings import Settings

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    '<b hx-get="/x" hx-trigger="load">',
    "a\u202eb",
)


@pytest.fixture(scope="module")
def api(url: str, db: Database, tenant_key: str) -> Iterator[httpx.Client]:
    db.run(models.add, "tiny")
    with http(url, tenant_key) as one:
        yield one


@pytest.fixture(scope="module")
def seen(url: str, api: httpx.Client, tenant_key: str) -> Iterator[httpx.Client]:
    with logged_in(url, tenant_key) as one:
        yield one


def asked_and_done(seen: httpx.Client, noun: str, form: dict[str, object]) -> str:
    """Choose, be asked, say yes; the page of outcomes."""
    page = seen.post(f"/console/{noun}/bulk/ask", data=form)
    assert page.status_code == 200, page.text
    fields: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text):
        fields.setdefault(name, []).append(value.replace("&#34;", '"'))
    done = seen.post(f"/console/{noun}/bulk", data=fields)
    assert done.status_code == 200, done.text
    return done.text


def test_many_are_paused_resumed_cancelled_and_retried_and_each_outcome_is_told(
    api: httpx.Client, seen: httpx.Client, db: Database, settings: Settings
) -> None:
    first, second = (a_job(api, metadata={"of": "bulk"}) for _ in range(2))
    assert "2 done, 0 not" in asked_and_done(seen, "jobs", {"act": "pause", "id": [first, second]})
    assert api.get(f"/v1/jobs/{first}").json()["paused"]
    assert "2 done, 0 not" in asked_and_done(seen, "jobs", {"act": "resume", "all": "1", "q": "meta.of:bulk"})
    page = asked_and_done(seen, "jobs", {"act": "pause", "id": [first, "job_nothing"]})
    assert "1 done, 1 not" in page
    assert "No such job" in page or "not found" in page.lower() or "job_nothing" in page
    asked_and_done(seen, "jobs", {"act": "cancel", "id": [first]})
    worked(db, settings, ("q2",))
    page = asked_and_done(seen, "jobs", {"act": "retry", "id": [second]})
    assert "1 done, 0 not" in page
    assert "the retry" in page
    assert api.get(f"/v1/jobs/{second}").json()["children"], "the API has it"
    assert seen.post("/console/jobs/bulk/ask", data={"act": "cancel"}).status_code == 400
    assert seen.post("/console/jobs/bulk", data={"act": "burn", "id": [first]}).status_code == 400
    asked_and_done(seen, "jobs", {"act": "cancel", "all": "1", "q": "status:in_progress"})


def test_filters_say_what_they_do_not_know(api: httpx.Client, seen: httpx.Client) -> None:
    file = upload(api)["id"]
    id = create(api, file, lane="flex", metadata={"team": "a b"})["id"]
    assert id in seen.get("/console/batches", params={"q": 'lane:flex meta.team:"a b"'}).text
    assert id not in seen.get("/console/batches", params={"q": "lane:priority"}).text
    for asked, words in (
        ("size:3", "is no qualifier"),
        ('meta.team:"a', "quotation mark"),
        ("status:sleepy", "A status is one of"),
        ("lane:slow", "lane"),
    ):
        page = seen.get("/console/batches", params={"q": asked})
        assert page.status_code == 400
        assert words in page.text, page.text
        assert 'role="alert"' in page.text


def test_new_terms_are_kept_as_typed_where_they_are_refused(api: httpx.Client, seen: httpx.Client) -> None:
    id = create(api, upload(api)["id"])["id"]
    refused = seen.post(f"/console/batches/{id}/change", data={"lane": "flex", "window": "soon", "metadata": "a=1"})
    assert refused.status_code == 400
    assert 'value="soon"' in refused.text
    refused = seen.post(f"/console/batches/{id}/change", data={"lane": "flex", "metadata": "no pair"})
    assert "Metadata is written as key=value" in refused.text
    done = seen.post(f"/console/batches/{id}/change", data={"lane": "flex", "window": "2d", "metadata": "a=1\nb=2"})
    assert done.headers["location"].endswith(f"/console/batches/{id}?done=changed")
    now = api.get(f"/v1/batches/{id}").json()
    assert (now["lane"], now["completion_window"], now["metadata"]) == ("flex", "2d", {"a": "1", "b": "2"})
    assert seen.post(f"/console/batches/{id}/cancel", data={}).status_code == 303


def test_files_are_downloaded_as_the_api_has_them(api: httpx.Client, seen: httpx.Client) -> None:
    file = upload(api, b'{"not": "a line"}\n')["id"]
    id = create(api, file)["id"]
    got = seen.get(f"/console/batches/{id}/files/input")
    assert got.content == api.get(f"/v1/files/{file}/content").content
    assert got.headers["content-disposition"].startswith("attachment")
    so_far = seen.get(f"/console/batches/{id}/files/so-far")
    assert (so_far.status_code, so_far.content) == (200, b"")
    assert so_far.headers["content-disposition"] == f'attachment; filename="{id}-so-far.jsonl"'
    assert seen.get(f"/console/batches/{id}/files/output").status_code == 404
    assert seen.get(f"/console/batches/{id}/files/passwd").status_code == 404


def test_what_clients_write_is_text(api: httpx.Client, seen: httpx.Client, db: Database, settings: Settings) -> None:
    pairs = {f"k{number}": text for number, text in enumerate(HOSTILE)}
    id = create(api, upload(api)["id"], metadata=pairs)["id"]
    job = a_job(api, metadata=pairs)
    worked(db, settings, ("q1",), words="<script>alert(2)</script> <b hx-get=/x>")
    pages = (f"/batches/{id}", "/batches", f"/jobs/{job}", "/jobs", "/batches?q=%3Cscript%3Ealert(1)")
    for path in pages:
        text = seen.get(f"/console{path}").text
        text = re.sub(r"(?s)<textarea.*?</textarea>", "", text) if path == f"/batches/{id}" else text  # as it was typed
        for evil in ("<script>alert", "<img src=x", "<b hx-get", "\u202e"):
            assert evil not in text, (path, evil)
    assert "⟨U+202E⟩" in seen.get(f"/console/batches/{id}").text


def test_a_viewer_only_looks_and_a_stranger_finds_nothing(
    api: httpx.Client, url: str, db: Database, viewer_key: str
) -> None:
    id = create(api, upload(api)["id"])["id"]
    _, foreign = db.run(keys.create, "stranger", "acts")
    reading = (f"/batches/{id}", f"/batches/{id}/files/input", f"/batches/{id}/stream")
    acts = ("pause", "resume", "cancel", "change", "retry", "delete")
    with logged_in(url, viewer_key) as viewer, logged_in(url, foreign) as stranger:
        page = viewer.get(f"/console/batches/{id}")
        assert page.status_code == 200
        for action in acts:
            assert f"/{id}/{action}" not in page.text, "a viewer is shown no action"
            assert viewer.post(f"/console/batches/{id}/{action}", data={"lane": "flex"}).status_code == 403, action
            assert stranger.post(f"/console/batches/{id}/{action}", data={"lane": "flex"}).status_code == 404, action
        for path in reading:
            assert stranger.get(f"/console{path}").status_code == 404, path
        assert "bulk" not in viewer.get("/console/batches").text
        assert viewer.post("/console/batches/bulk", data={"act": "cancel", "id": id}).status_code == 403
        told = stranger.post("/console/batches/bulk", data={"act": "cancel", "id": id}).text
        assert "0 done, 1 not" in told
        assert "Nothing was submitted yet" in stranger.get("/console/batches").text


def test_a_page_shows_how_far_each_member_of_an_ensemble_is(
    chromium: Browser, url: str, tenant_key: str, api: httpx.Client, db: Database, settings: Settings
) -> None:
    only = {"name": "desk", "kind": "route", "members": [{"model": "tiny"}], "default": "tiny"}
    db.run(ensembles.add, only)
    job = a_job(api, lines=3, model="desk")
    end = begun(db, settings, answered=2)
    assert api.get(f"/v1/jobs/{job}/members").json()["data"] == [
        {"ensemble": "desk@v1", "member": "tiny", "model": "tiny", "asked": 3, "answered": 2, "failed": 0, "left": 1,
         "undecided": 0},
    ]  # fmt: skip
    with opened(chromium, url, tenant_key) as page:
        page.goto(f"/console/jobs/{job}")
        page.get_by_role("heading", name="Members of desk@v1").wait_for()
        row = page.get_by_role("region", name="How far members are").get_by_role("row").last
        assert row.inner_text().split() == ["tiny", "tiny", "3", "2", "0", "1", "0"]
        look(page, "job-members")
        end()
        table = page.get_by_role("region", name="How far members are")
        table.get_by_role("img", name="2 answered, 1 failed, 0 left").wait_for()
        assert row.inner_text().split() == ["tiny", "tiny", "3", "2", "1", "0", "0"]
