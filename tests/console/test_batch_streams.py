"""Streams of batches' pages: one look a second for all, nothing for who may not look, and back after a restart."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import ExitStack

import httpx
import pytest
from api.live import create, serving, upload
from api.statements import looks
from console.batch_world import OURS, by_hand, http, logged_in
from console.browser import Browser, Page, opened

from penstock.service.admin import keys
from penstock.service.control import cancel
from penstock.service.core.transaction import Database
from penstock.settings import Settings

TENANT = "team-a"


@pytest.fixture(scope="module")
def batch(url: str, tenant_key: str) -> str:
    """One that nobody validates."""
    with http(url, tenant_key) as client:
        return str(create(client, upload(client)["id"])["id"])


def test_a_stream_ends_with_the_session_and_is_nobody_elses(
    url: str, db: Database, batch: str, tenant_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.console.session_watch.LOOK_SECONDS", 0.2)
    id, short = db.run(keys.create, TENANT, "short")
    _, foreign = db.run(keys.create, "stranger", "test")
    with logged_in(url, foreign) as stranger, logged_in(url, short) as client:
        assert stranger.get(f"/console/batches/{batch}/stream").status_code == 404
        assert httpx.get(f"{url}/console/batches/stream", headers={"accept": "text/event-stream"}).status_code == 401
        assert client.get("/console/batches/stream?q=nonsense").status_code == 400
        assert client.head(f"/console/batches/{batch}/stream").content == b""
        for path in (f"/console/batches/{batch}/stream", "/console/batches/stream?q=lane:standard"):
            with client.stream("GET", path) as answer:
                told = answer.iter_lines()
                assert any("batch_" in line for line in told)
        with client.stream("GET", f"/console/batches/{batch}/stream") as answer:
            told = answer.iter_lines()
            assert any("What happened" in line for line in told), "the snapshot comes first"
            db.run(keys.revoke, TENANT, id)
            rest = list(told)
        assert any("This session is over" in line for line in rest)
        assert "event: end" in rest
    with logged_in(url, tenant_key) as client, client.stream("GET", f"/console/batches/{batch}/stream") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")


@pytest.mark.slow
def test_200_viewers_of_a_batch_cost_one_statement_a_second_and_each_sees_its_end(
    url: str, db: Database, batch: str, tenant_key: str
) -> None:
    """Of a page and of the list, in 20 sessions."""
    cookies = []
    for _ in range(20):
        with logged_in(url, tenant_key) as client:
            cookies.append(dict(client.cookies))

    async def watch(client: httpx.AsyncClient, number: int, begun: asyncio.Event, had: list[str]) -> None:
        headers = {"cookie": "; ".join(f"{name}={value}" for name, value in cookies[number % 20].items())}
        async with client.stream("GET", f"/console/batches/{batch}/stream", headers=headers) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                had.append(line)
                if not line:
                    begun.set()

    async def watched() -> None:
        limits = httpx.Limits(max_connections=500)
        async with httpx.AsyncClient(base_url=url, headers=OURS, timeout=120, trust_env=False, limits=limits) as client:
            begun = [asyncio.Event() for _ in range(200)]
            had: list[list[str]] = [[] for _ in begun]
            watching = [
                asyncio.create_task(watch(client, number, *one))
                for number, one in enumerate(zip(begun, had, strict=True))
            ]
            await asyncio.gather(*(one.wait() for one in begun))
            with looks() as sent:
                began = time.monotonic()
                assert await asyncio.to_thread(sent.four.wait, 60)
                took = time.monotonic() - began
            assert took > 2.9, "of four looks each is a second after the one before"
            assert len(set(sent)) == 1, sent
            with looks() as sent:
                await asyncio.to_thread(db.run, cancel.cancel, TENANT, "batch", batch)
                await asyncio.gather(*watching)
            assert len([one for one in sent if "select" in one]) < 40, "its end is asked for once, not by each"
            assert all("event: end" in one for one in had)
            assert all(any("cancelled" in line for line in one) for one in had)

    asyncio.run(watched())


@pytest.mark.slow
def test_eight_tabs_are_live_at_once(chromium: Browser, url: str, db: Database, tenant_key: str) -> None:
    with http(url, tenant_key) as client:
        batch = create(client, upload(client)["id"])["id"]
    with ExitStack() as stack:
        pages = [stack.enter_context(opened(chromium, url, tenant_key)) for _ in range(8)]
        for number, page in enumerate(pages):
            page.goto(f"/console/batches/{batch}" if number % 2 else "/console/batches")
        by_hand(db, "update batches set total = 4321 where id = :id", id=batch)
        for number, page in enumerate(pages):
            page.get_by_text("left of 4,321" if number % 2 else "4,321 left").wait_for()


@pytest.mark.slow
def test_a_hidden_tab_has_no_stream_and_a_stream_comes_back_after_a_restart(
    chromium: Browser, settings: Settings, db: Database, tenant_key: str
) -> None:
    with ExitStack() as stack:
        running = stack.enter_context(ExitStack())
        address = running.enter_context(serving(settings))
        with http(address, tenant_key) as client:
            batch = create(client, upload(client)["id"])["id"]
        page = stack.enter_context(opened(chromium, address, tenant_key))
        with page.expect_response(lambda one: one.url.endswith("/stream")):
            page.goto(f"/console/batches/{batch}")
        page.locator(".figure", has_text="0.0").first.wait_for()  # a part came
        closed = threading.Event()
        for what in ("requestfailed", "requestfinished"):
            page.on(what, lambda one: closed.set() if one.url.endswith("/stream") else None)  # type: ignore[call-overload]
        _shown(page, hidden=True)
        for _ in range(200):
            if closed.is_set():
                break
            page.evaluate("new Promise(done => setTimeout(done, 50))")
        assert closed.is_set(), "the stream of a hidden tab is closed"
        by_hand(db, "update batches set total = 7 where id = :id", id=batch)
        _shown(page, hidden=False)
        page.get_by_text("left of 7").wait_for()
        running.close()
        page.get_by_text("Lost the connection").wait_for()
        by_hand(db, "update batches set total = 8 where id = :id", id=batch)
        running.enter_context(serving(settings, int(address.rsplit(":", 1)[1])))
        page.get_by_text("left of 8").wait_for()
        page.locator("[data-live-word]", has_text="Live").wait_for()


def _shown(page: Page, *, hidden: bool) -> None:
    """As a browser says it of a tab that goes behind another, or comes back."""
    page.evaluate(
        "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )
