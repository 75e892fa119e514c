"""Failed lines: groups, lines, a line; what failed is asked again, with other parameters where that helps."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import httpx
import pytest
from api.live import chat, http
from console.browser import Browser, opened
from console.lines import HOSTILE, OTHER, REFUSED, answer, asked, at_desk, is_inert, key_of, reader
from console.looks import look
from service.desk import Desk

from penstock.domain.accounts.access import Role
from penstock.settings import Settings

IDS = [f"q{n}" for n in range(1, 10)] + [f"a\nb {HOSTILE}"]


@pytest.fixture(scope="module")
def desk(settings: Settings, url: str) -> Iterator[Desk]:
    """Hands that do what workers would."""
    with at_desk(settings) as desk:
        yield desk


@pytest.fixture(scope="module")
def failed(desk: Desk) -> str:
    """An ended batch: lines 3, 8 and 10 are refused in one way, 4 in another."""
    batch = desk.validate(asked(*IDS))
    bodies = dict.fromkeys(range(1, 11), answer("fine")) | {3: REFUSED, 8: REFUSED, 10: REFUSED, 4: OTHER}
    desk.answer(batch, failed=frozenset({3, 4, 8, 10}), bodies=bodies)
    desk.assemble(batch)
    return batch


@pytest.fixture(scope="module")
def acme(url: str, desk: Desk) -> Iterator[httpx.Client]:
    """Somebody of the tenant."""
    with reader(url, key_of(desk)) as client:
        yield client


def retried(desk: Desk, answered: httpx.Response) -> tuple[str, list[str]]:
    """The plan of the new batch, and how the custom_ids begin that it asks."""
    assert answered.status_code == 303, answered.text
    new = answered.headers["location"].removeprefix("/console/batches/").removesuffix("?done=retried")
    desk.validate_it(new)
    plan = desk.plan(new)
    desk.world.cancel(new)
    desk.assemble(new)
    return plan.decode("utf-8", "replace"), [one[:4].decode() for one in plan.split(b'"custom_id":')[1:]]


def test_with_the_keyboard_alone_one_opens_a_group_and_asks_a_line_again(
    chromium: Browser, url: str, desk: Desk, failed: str
) -> None:
    with opened(chromium, url, key_of(desk)) as page:
        page.goto(f"/console/batches/{failed}/failed")
        look(page, "failed-groups")

        def to(selector: str) -> None:
            for _ in range(60):
                page.keyboard.press("Tab")
                if page.evaluate("one => document.activeElement.matches(one)", selector):
                    return
            raise AssertionError(f"Tab does not lead to {selector}")

        to("a[href*='tool_not_found']")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="tool_not_found").wait_for()
        to("[data-ticks]")
        page.keyboard.press("Space")
        assert page.get_by_label("Retry line 4").is_checked()
        to("[name=max_tokens]")
        page.keyboard.type("many")
        page.keyboard.press("Enter")
        page.get_by_role("alert").wait_for()
        assert "Max tokens must be a whole number" in page.get_by_role("alert").inner_text()
        assert page.get_by_label("Retry line 4").is_checked(), "what was ticked stays so"
        look(page, "failed-lines")
        to("[name=max_tokens]")
        page.keyboard.press("Control+A")
        page.keyboard.type("512")
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile(r"/console/batches/batch_\w+\?done=retried"))
        page.goto(f"/console/batches/{failed}/lines/10")
        look(page, "failed-line")
        assert page.evaluate("typeof window.x") == "undefined"


def test_a_group_is_asked_again_with_other_parameters(acme: httpx.Client, desk: Desk, failed: str) -> None:
    path = f"/console/batches/{failed}/failed"
    page = acme.get(path).text
    assert is_inert(page)
    assert "40 %" in page
    assert "30 %" in page, "three of ten lines are one group"
    once = re.search(r'name="once" value="([^"]+)"', page)
    assert once
    sent = {
        "group": "400:BadRequestError",
        "scope": "ticked",
        "once": once[1],
        "max_tokens": "77",
        "temperature": "0.5",
    }
    first, again = (acme.post(f"{path}/retry", data=sent) for _ in range(2))
    assert first.headers["location"] == again.headers["location"], "two clicks make one batch"
    plan, ids = retried(desk, first)
    assert ids == ['"q3"', '"q8"', '"a\\n']
    assert plan.count('"max_tokens":77') == plan.count('"temperature":0.5') == 3


def test_a_line_with_any_custom_id_is_asked_again_and_what_is_none_is_said(
    acme: httpx.Client, desk: Desk, failed: str
) -> None:
    path = f"/console/batches/{failed}/failed"
    page = acme.get(f"{path}/lines?group=400:BadRequestError").text
    assert is_inert(page)
    values = [html.unescape(one) for one in re.findall(r'name="line" value="([^"]*)"', page)]
    assert len(values) == 3
    _, ids = retried(desk, acme.post(f"{path}/retry", data={"line": values[2], "scope": "ticked"}))
    assert ids == ['"a\\n']
    for wrong in ({}, {"line": "q3"}, {"line": values[0], "temperature": "nan"}):
        answered = acme.post(f"{path}/retry", data={"scope": "ticked", **wrong})
        assert answered.status_code >= 400, wrong
        assert 'role="alert"' in answered.text


def test_a_line_shows_its_request_beside_its_response(acme: httpx.Client, failed: str) -> None:
    page = acme.get(f"/console/batches/{failed}/lines/10").text
    assert is_inert(page)
    assert "⟨U+202E⟩" in page
    assert "&#34;max_tokens&#34;: 16" in page, "laid out"
    assert acme.get(f"/console/batches/{failed}/lines/11").status_code == 404
    assert acme.get(f"/console/batches/{failed}/lines/0").status_code == 404


def test_while_it_runs_lines_are_shown_and_none_is_asked_again(url: str, acme: httpx.Client, desk: Desk) -> None:
    batch = desk.validate(asked("one", "two"))
    assert "No line has failed so far" in acme.get(f"/console/batches/{batch}/failed").text
    desk.world.cancel(batch)
    desk.assemble(batch)
    page = acme.get(f"/console/batches/{batch}/failed").text
    assert "batch_cancelled" in page
    line = acme.get(f"/console/batches/{batch}/lines/1").text
    assert "No engine said anything" in line
    asks = {"model": "tiny", "requests": [{"custom_id": one, "body": chat()} for one in "ab"]}
    with http(url, key_of(desk)) as client:
        job = client.post("/v1/jobs", json=asks).json()["id"]
    assert "No line has failed so far" in acme.get(f"/console/jobs/{job}/failed").text
    line = acme.get(f"/console/jobs/{job}/lines/2").text
    assert "It has not been answered yet" in line
    desk.world.cancel(job, "job")
    ended = acme.get(f"/console/jobs/{job}/failed/lines?group=-:batch_cancelled").text
    assert ended.count('name="line"') == 2


@pytest.mark.parametrize("failures", [400, pytest.param(40_000, marks=pytest.mark.slow)])
def test_many_failures_are_a_small_page(acme: httpx.Client, desk: Desk, failures: int) -> None:
    batch = desk.validate(b"\n".join(b"{}" for _ in range(failures)) + b"\n" + asked("good"), on_invalid="skip")
    desk.answer(batch)
    desk.assemble(batch)
    groups = acme.get(f"/console/batches/{batch}/failed")
    assert f"{failures:,}" in groups.text
    lines = acme.get(f"/console/batches/{batch}/failed/lines")
    assert "Next page" in lines.text
    last = acme.get(f"/console/batches/{batch}/failed/lines?after={failures - 20}")
    assert f">{failures - 1:,}<" in last.text
    assert "Next page" not in last.text
    assert max(len(one.content) for one in (groups, lines, last)) < 60_000


def test_a_viewer_asks_nothing_again_and_a_stranger_sees_nothing(
    url: str, desk: Desk, failed: str, tenant_key: str
) -> None:
    pages = [f"/console/batches/{failed}/{one}" for one in ("failed", "failed/lines", "lines/3")]
    with reader(url, key_of(desk, role=Role.VIEWER)) as viewer:
        for path in pages:
            page = viewer.get(path)
            assert page.status_code == 200
            assert "Retry" not in page.text
        refused = viewer.post(f"/console/batches/{failed}/failed/retry", data={"scope": "all"})
        assert refused.status_code == 403
    with reader(url, tenant_key) as stranger:
        for path in pages:
            assert stranger.get(path).status_code == 404
        assert stranger.post(f"/console/batches/{failed}/failed/retry", data={"scope": "all"}).status_code == 404


def test_what_is_gone_is_said(acme: httpx.Client, desk: Desk) -> None:
    batch = desk.validate(asked("one"))
    desk.answer(batch, failed=frozenset({1}), bodies={1: OTHER})
    desk.assemble(batch)
    desk.world.sql("update files set index_key = null where id = :id", id=desk.world.find(batch).error_file)
    page = acme.get(f"/console/batches/{batch}/failed/lines")
    assert page.status_code == 410
    assert 'role="alert"' in page.text
