"""A person's journey through the console, from a file with a fault to answers on their disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from console.browser import Browser, opened
from console.looks import look
from e2e.live import Platform, chat, jsonl

LINES: Final = 24
TOO_MANY: Final = 4
"""Lines that ask for more tokens than the engine's context has."""
_SECONDS: Final = 60_000
"""For what an engine does; in milliseconds."""


def travel(browser: Browser, platform: Platform, folder: Path) -> None:
    """Log in, drop a file, see its fault, mend it, estimate, create, watch, retry what failed, download."""
    bad, mended = folder / "bad.jsonl", folder / "mended.jsonl"
    lines = jsonl(_requests())
    bad.write_bytes(lines + b"{oops\n")
    mended.write_bytes(lines)
    key = (platform.data / "key").read_text().strip()
    with opened(browser, platform.url, key) as page:
        page.get_by_role("link", name="Batches").first.click()
        page.get_by_role("link", name="New batch").click()
        page.get_by_label("A JSONL file").set_input_files(bad)
        page.get_by_role("heading", name="1 line would be refused").wait_for()
        assert page.locator("#new-batch-faults tbody tr").inner_text().startswith(f"{LINES + 1}\t")
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Choose the mended file").click()
        chooser.value.set_files(mended)
        page.get_by_role("heading", name="mended.jsonl", level=1).wait_for()
        assert page.get_by_role("radio").count() == 3, "each lane has its estimate"
        look(page, "journey-estimates")
        page.get_by_label("Window").fill("2h")
        page.get_by_role("button", name="Create the batch").click()
        page.wait_for_url("**/console/batches/batch_*")
        page.get_by_text("Ended", exact=True).wait_for(timeout=_SECONDS)
        page.get_by_text(f"{LINES - TOO_MANY} answered · {TOO_MANY} failed · 0 left").wait_for()
        look(page, "journey-ended")
        page.get_by_role("link", name="Failed lines").first.click()
        page.get_by_role("link", name="BadRequestError").click()
        page.get_by_label("Max tokens").fill("8")
        page.get_by_role("button", name="Retry the whole group").click()
        page.wait_for_url("**/console/batches/batch_*done=retried")
        page.get_by_text(f"{TOO_MANY} answered · 0 failed · 0 left").wait_for(timeout=_SECONDS)
        retried = platform.sdk.batches.retrieve(page.url.split("/")[-1].partition("?")[0])
        page.get_by_role("link", name="Results").first.click()
        look(page, "journey-results")
        with page.expect_download() as download:
            page.get_by_role("link", name="JSONL").click()
        assert retried.output_file_id is not None
        expected = platform.sdk.files.content(retried.output_file_id).content
        assert download.value.path().read_bytes() == expected
        asked = {json.loads(line)["custom_id"] for line in expected.splitlines()}
        assert asked == {f"long-{n}" for n in range(TOO_MANY)}


def _requests() -> list[dict[str, Any]]:
    short = [chat(f"short-{n}", f"What is {n}?", temperature=0, max_tokens=8) for n in range(LINES - TOO_MANY)]
    return short + [chat(f"long-{n}", f"Tell all of {n}.", max_tokens=100_000) for n in range(TOO_MANY)]
