"""Operators' pages: overview, workers with the picture of their slots, models and pools, lanes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from api.live import KEY
from console.browser import Browser, opened
from console.fleet_desk import SMALL, Fleet, operating
from console.looks import look

from penstock.domain.calls.ingress import Load
from penstock.domain.engines.engine_report import EngineReport
from penstock.service.calls import ingresses
from penstock.service.core.transaction import Database
from penstock.service.lifecycle import work
from penstock.settings import Settings

PAGES = ("overview", "workers", "models", "lanes")


@pytest.fixture(scope="module")
def settings(shared_database_url: str, valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Rows of workers have no process behind them, so nobody is taken for lost meanwhile."""
    blobs: Path = tmp_path_factory.mktemp("blobs")
    return Settings(
        database_url=shared_database_url,
        redis_url=valkey_url,
        blob_url=f"file://{blobs}",
        bootstrap_key=KEY,
        worker_gone_seconds=3_600.0,
    )


def test_each_page_of_an_empty_platform_says_what_fills_it(chromium: Browser, url: str) -> None:
    with opened(chromium, url, KEY) as page:
        for name in ("overview", "workers", "models"):
            page.goto(f"/console/{name}")
            page.get_by_text("Live", exact=True).wait_for()
            look(page, f"{name}-empty")
        page.goto("/console/overview")
        assert page.get_by_text("No keeper ticks").count() == 1
        assert page.locator("pre", has_text="penstock keeper").count() == 1
        page.goto("/console/lanes")
        assert page.get_by_text("nothing open").count() == 3


@pytest.fixture(scope="module")
def fleet(db: Database, settings: Settings, url: str) -> Fleet:
    """Who works."""
    made = Fleet(db, settings, url)
    made.second_version()
    made.sample(40)
    return made


@pytest.fixture(scope="module")
def desk(url: str) -> Iterator[httpx.Client]:
    """An operator without a browser."""
    with operating(url) as client:
        yield client


def test_an_operator_sees_the_platform_and_its_charts(chromium: Browser, url: str, fleet: Fleet) -> None:
    with opened(chromium, url, KEY) as page:
        page.goto("/console/overview")
        page.get_by_text("Live", exact=True).wait_for()
        chat = page.get_by_role("region", name="chat", exact=True)
        assert chat.get_by_text("promised 200 ms").count() == 1
        assert chat.get_by_text("promise kept").or_(chat.get_by_text("promise broken")).count() == 1
        assert chat.locator("dd", has_text="batch lines").inner_text().startswith("143")
        late = page.get_by_role("region", name="Deadlines at risk")
        assert late.get_by_role("link", name=fleet.late).get_attribute("href") == f"/console/jobs/{fleet.late}"
        assert page.locator(".time-chart svg polyline").count() >= 4
        page.get_by_text("The numbers").first.click()
        assert page.locator(".numbers").first.locator("tbody tr").count() > 10
        page.get_by_role("link", name="Last week").click()
        page.wait_for_url("**span=week**")
        page.goto("/console/overview?model=chat")
        page.get_by_role("heading", name="Charts of chat").wait_for()
        look(page, "overview")


@pytest.mark.slow
def test_the_slots_of_each_engine_are_a_picture_that_moves_while_one_looks(
    chromium: Browser, url: str, fleet: Fleet, db: Database
) -> None:
    with opened(chromium, url, KEY) as page:
        page.goto("/console/workers")
        page.get_by_text("Live", exact=True).wait_for()
        told = page.get_by_role("img", name="256 slots: 9 waiting calls, 12 lines of lane priority")
        told.wait_for()
        assert page.get_by_text("closed to lines: the engine's KV cache is nearly full.").count() == 1
        look(page, "workers")
        summary = page.locator("details.ask summary", has_text="Drain").first
        summary.click()
        moved = EngineReport(**vars(SMALL) | {"lines": {"standard": 7}})
        db.run(ingresses.pulse, fleet.small, Load(True, 1, 7, 8, "all", 50.0, moved))
        page.get_by_role("img", name="12 slots: 1 waiting calls, 7 lines of lane standard").wait_for()
        assert page.locator("details.ask[open]").count() == 1, "a question that was opened stays open"
        page.goto("/console/workers?live=off")
        assert page.locator("[hx-sse\\:connect]").count() == 0


def test_a_worker_is_drained_and_taken_back_from_its_page(
    chromium: Browser, url: str, fleet: Fleet, db: Database, settings: Settings
) -> None:
    with opened(chromium, url, KEY) as page:
        page.goto(f"/console/workers/{fleet.chat.id}")
        look(page, "worker")
        page.locator("summary", has_text="Drain").click()
        page.get_by_role("button", name="Drain it").click()
        page.get_by_text("It was told to take nothing new").wait_for()
        page.get_by_text("drain asked").wait_for()
        page.get_by_role("button", name="Undrain").click()
        page.get_by_text("It was told to take work again").wait_for()
        db.run(work.beat, fleet.chat, [], settings)
        page.locator("summary", has_text="Restart").click()
        page.get_by_role("button", name="Restart its engine").click()
        page.get_by_text("restart asked").wait_for()


def test_models_pools_and_lanes_are_shown_with_what_they_decided(chromium: Browser, url: str, fleet: Fleet) -> None:
    with opened(chromium, url, KEY) as page:
        page.goto("/console/models")
        page.get_by_role("link", name="chat", exact=True).wait_for()
        look(page, "models")
        page.goto("/console/pools/gpus")
        assert page.get_by_text("A waiting call asked for sql@v1.").count() == 1
        assert page.get_by_text("chat@v1's turn was over, and sql@v1 was worth more.").count() == 1
        assert page.get_by_text("lane standard allows 1 h 0 min").count() == 2
        look(page, "pool")
        page.goto("/console/lanes")
        page.get_by_role("region", name="Lane standard").wait_for()
        look(page, "lanes")
        page.goto("/console/models/chat")
        look(page, "model")
        page.locator("summary", has_text="Promote").click()
        page.get_by_label("Share in percent").fill("60")
        page.get_by_label("Version", exact=True).select_option("v2")
        page.get_by_role("button", name="Promote it").click()
        page.get_by_text("v1 40 %, v2 60 %").first.wait_for()
        page.locator("summary", has_text="Roll back").click()
        page.get_by_role("button", name="Roll it back").click()
        page.get_by_text("v1 90 %, v2 10 %").first.wait_for()


def test_what_the_api_refuses_is_said_on_the_page_and_what_was_typed_stays(desk: httpx.Client, fleet: Fleet) -> None:
    sent = {"model": "chat", "alias": "chat@stable", "version": "v2", "weight": "300"}
    answer = desk.post("/console/models/promote", data=sent)
    assert (answer.status_code, 'role="alert"' in answer.text, 'value="300"' in answer.text) == (400, True, True)
    answer = desk.post("/console/models/retire", data={"model": "chat", "version": "chat@v2"})
    assert (answer.status_code, 'role="alert"' in answer.text) == (409, True)
    answer = desk.post(f"/console/workers/{fleet.keeper.id}/drain")
    assert (answer.status_code, "A keeper takes no orders" in answer.text) == (409, True)
    answer = desk.post("/console/pools/gpus/wake", data={"version": "nothing"})
    assert (answer.status_code, 'role="alert"' in answer.text) == (404, True)


def test_a_pools_version_is_pinned_and_its_switch_cancelled(desk: httpx.Client, fleet: Fleet) -> None:
    for act, version, said in (
        ("pin", "chat@v1", "kept awake until it is unpinned"),
        ("unpin", "chat@v1", "takes turns"),
        ("cancel", "", "The switch is cancelled."),
    ):
        answer = desk.post(f"/console/pools/gpus/{act}", data={"version": version}, follow_redirects=True)
        assert (answer.status_code, said in answer.text) == (200, True), act
    assert desk.post("/console/pools/gpus/cancel").status_code == 409
    assert desk.post("/console/pools/gpus/other").status_code == 404


def test_what_engines_say_stays_text(desk: httpx.Client, fleet: Fleet) -> None:
    for path in (f"/workers/{fleet.troubled.id}", "/workers", "/overview", "/pools/gpus"):
        text = desk.get(f"/console{path}").text
        assert "&lt;script&gt;alert(1)" in text, path
        assert "⟨U+202E⟩" in text, path
        for evil in ("<script>alert", "<img src=x", '<b hx-get="', "\u202e"):
            assert evil not in text, (path, evil)


def test_these_pages_are_for_operators_only(url: str, fleet: Fleet, tenant_key: str, viewer_key: str) -> None:
    id = fleet.chat.id
    paths = [*PAGES, *(f"{one}/stream" for one in PAGES)]
    paths += [f"workers/{id}", f"workers/{id}/stream", "models/chat", "pools/gpus", "pools/gpus/stream"]
    orders = (f"workers/{id}/drain", "models/rollback", "pools/gpus/wake")
    for key in (tenant_key, viewer_key):
        with operating(url, key) as client:
            assert {client.get(f"/console/{one}").status_code for one in paths} == {403}
            sent = {"alias": "chat@stable"}
            assert {client.post(f"/console/{one}", data=sent).status_code for one in orders} == {403}
            assert "Overview" not in client.get("/console/batches").text
    with httpx.Client(base_url=url, headers={"accept": "text/event-stream"}) as nobody:
        assert nobody.get("/console/workers/stream").status_code == 401


def test_what_is_not_there_is_a_404(desk: httpx.Client, fleet: Fleet) -> None:
    for path in ("workers/nobody", "models/nothing", "pools/nothing"):
        assert desk.get(f"/console/{path}").status_code == 404


def test_a_stream_begins_with_what_is_and_ends_with_what_is_watched(desk: httpx.Client, fleet: Fleet) -> None:
    with desk.stream("GET", f"/console/workers/{fleet.io.id}/stream") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines).startswith("data: ")
    with desk.stream("GET", "/console/workers/nobody/stream") as answer:
        assert [one for one in answer.iter_lines() if one] == ["event: end", "data: over"]
    assert desk.head("/console/workers/stream").status_code == 200
