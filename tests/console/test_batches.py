"""Batches and jobs, in a browser: seen as they are, watched as they move, steered one by one and many at once."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from api.live import create, upload
from console.batch_world import a_job, begun, by_hand, http, models
from console.browser import Browser, Page, opened
from console.looks import look

from penstock.service.admin import prices
from penstock.service.control import cancel
from penstock.service.core.transaction import Database
from penstock.settings import Settings

TENANT = "team-a"


@pytest.fixture(scope="module")
def client(url: str, db: Database, tenant_key: str) -> Iterator[httpx.Client]:
    """The API, as the tenant whose pages are looked at."""
    db.run(models.add, "tiny")
    with http(url, tenant_key) as one:
        yield one


def hold(page: Page, name: str) -> None:
    """Press Tab until this is in focus: it is reached by keys alone."""
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.evaluate("(document.activeElement.ariaLabel || document.activeElement.textContent || '').trim()")
        if focused == name:
            return
    pytest.fail(f"no Tab leads to {name!r}")


def test_a_job_is_watched_to_its_end_and_its_failed_lines_asked_again(
    chromium: Browser, url: str, client: httpx.Client, db: Database, settings: Settings, tenant_key: str
) -> None:
    db.run(prices.set_price, "tiny", input="1000", cached_input="100", output="2000", currency="EUR")
    job = a_job(client, metadata={"team": "search"})
    with opened(chromium, url, tenant_key) as page:
        page.goto(f"/console/jobs/{job}")
        page.get_by_text("Why it waits:").wait_for()
        look(page, "batch-waits")
        end = begun(db, settings, answered=3, equal=True)
        page.get_by_text("3 answered · 0 failed · 1 left of 4").wait_for()
        page.get_by_role("row", name="equal lines, asked once 5 3 0.0105 EUR").wait_for()
        page.locator("summary", has_text="Cancel").click()
        assert page.get_by_role("button", name="Cancel it").is_visible()
        page.keyboard.press("Escape")
        look(page, "batch-runs")
        end()
        page.get_by_text("3 answered · 1 failed · 0 left of 4").wait_for()
        page.get_by_text("Ended", exact=True).wait_for()
        page.get_by_role("heading", name="Errors by kind").wait_for()
        assert page.get_by_role("cell", name="BadRequestError").is_visible()
        look(page, "batch-ended")
        page.locator("summary", has_text="Retry failed").click()
        page.get_by_role("button", name="Retry them").click()
        page.get_by_text("This is the retry").wait_for()
        assert page.get_by_role("link", name=job).is_visible(), "it names its parent"
        page.set_viewport_size({"width": 640, "height": 400})  # 200 % of a screen of 1280
        assert page.evaluate("document.documentElement.scrollWidth") <= 640
        db.run(cancel.cancel, TENANT, "job", page.url.split("/")[-1].split("?")[0])


def test_batches_are_found_chosen_and_cancelled_by_keys_alone(
    chromium: Browser, url: str, client: httpx.Client, db: Database, tenant_key: str
) -> None:
    file = upload(client)["id"]
    first = create(client, file, lane="flex", metadata={"team": "a"})["id"]
    with opened(chromium, url, tenant_key) as page:
        page.goto("/console/batches")
        hold(page, f"Choose {first}")
        page.keyboard.press("Space")
        second = create(client, file)["id"]
        page.get_by_label(f"Choose {second}").wait_for()
        by_hand(db, "update batches set state = 'paused' where id = :id", id=second)
        page.get_by_role("row", name=second).get_by_text("paused").wait_for()
        assert page.get_by_label(f"Choose {first}").is_checked(), "what was ticked stays so while rows change"
        look(page, "batches-full")
        page.get_by_label("Filter").focus()
        hold(page, "Cancel…")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Cancel 1 batch?").wait_for()
        look(page, "batches-ask")
        hold(page, "Yes, cancel")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="1 done, 0 not").wait_for()
        look(page, "batches-done")
        page.goto("/console/batches?q=status:sleepy")
        page.get_by_role("alert").get_by_text("A status is one of").wait_for()
        look(page, "batches-error")
        db.run(cancel.cancel, TENANT, "batch", second)
