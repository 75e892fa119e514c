"""A real browser for tests: Debian's chromium, driven by Playwright.

In every test a page may have no error in its console, break no policy of its own, and ask nothing of another origin.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, sync_playwright

__all__ = ["Browser", "Page", "opened", "running"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def running() -> Iterator[Browser]:
    """Start the browser; where there is none the test is skipped, or fails if it is required."""
    if CHROMIUM is None:
        words = "no chromium is there: `apt-get install chromium`"
        required = "chromium" in os.environ.get("PENSTOCK_TEST_REQUIRED", "").split(",") or os.environ.get("CI")
        pytest.fail(words) if required else pytest.skip(words)
    with sync_playwright() as driver:
        # Its own sandbox needs rights that a container has not; what it opens here is only our own.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, url: str, key: str | None = None, *, loses: bool = False, **context: object
) -> Iterator[Page]:
    """A page of a browser that nobody used before, logged in with a key if one is given.

    loses: the server goes away meanwhile, which the page may say in its console.

    At the end: no error in its console, no request to another origin, no part of a page that is missing.
    """
    own = urlsplit(url).netloc
    faults: list[str] = []
    with browser.new_context(base_url=url, **context) as made:  # type: ignore[arg-type]
        made.set_default_timeout(30_000)
        page = made.new_page()

        def asked(request: Request) -> None:
            if not request.url.startswith(("data:", "blob:")) and urlsplit(request.url).netloc != own:
                faults.append(f"a request to {request.url}")

        made.on("request", asked)

        def answered(response: Response) -> None:
            # A page may say that there is no such batch; what it is made of is always there.
            if response.status >= (500 if response.request.is_navigation_request() else 400):
                faults.append(f"{response.status} of {response.url}")

        def said(message: ConsoleMessage) -> None:
            expected = ("Failed to load resource", "htmx: htmx:sse:error") if loses else ("Failed to load resource",)
            if message.type == "error" and not message.text.startswith(expected):
                faults.append(message.text)

        made.on("response", answered)
        made.on("console", said)
        made.on("weberror", lambda one: faults.append(str(one.error)))
        if key is not None:
            page.goto("/console/login")
            page.get_by_label("API key").fill(key)
            page.get_by_role("button", name="Log in").click()
            page.get_by_role("button", name="Log out").wait_for()
        yield page
    if faults:
        pytest.fail("; ".join(faults))
