"""`make pictures`: the pictures of README, taken of the console in front of a platform with the simulated engine."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from console.browser import opened, running
from e2e.live import Platform, chat, jsonl, until, up

FOLDER: Final = Path(__file__).parents[2] / "docs" / "pictures"
_LOADS: Final = (("flex", 6_000, "nightly labels"), ("standard", 2_500, "support triage"), ("priority", 200, "hotfix"))
_CALLS: Final = 9
_ENGINE: Final = ("--latency-ms=1500", "--jitter=0.5", "--max-num-seqs=96", "--kv-usage=0.41")


def main() -> None:
    """Start it, give it work of each lane and some calls, and take a batch's page and the workers' page."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ps-") as folder:
        flags = [f"--engine-arg={one}" for one in _ENGINE]
        with up(Path(folder) / "p", "--engine=echo", *flags, slice_lines="256") as platform, _calls(platform):
            first, *_ = [_submit(platform, *one) for one in _LOADS]
            platform.watched(
                first, lambda one: bool(one.request_counts and one.request_counts.completed > 100), "lines", 150
            )
            _take(platform, f"/console/batches/{first}", "batch.png")
            _take(platform, "/console/workers", "workers.png")


def _submit(platform: Platform, lane: str, lines: int, team: str) -> str:
    asked = [chat(f"row-{n}", f"Label row {n}" + " [[status 400]]" * (n % 97 == 5)) for n in range(lines)]
    file = platform.http.post(
        "/files", files={"file": (f"{team}.jsonl", jsonl(asked))}, data={"purpose": "batch"}
    ).raise_for_status()
    terms = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "lane": lane, "metadata": {"for": team}}
    made = platform.http.post("/batches", json={"input_file_id": file.json()["id"], **terms}).raise_for_status().json()
    id: str = made["id"]
    return id


@contextmanager
def _calls(platform: Platform) -> Iterator[None]:
    """Waiting calls beside, one after the other in each of some threads."""
    over = threading.Event()

    def call() -> None:
        while not over.is_set():
            body = {"model": "tiny", "messages": [{"role": "user", "content": "How are you?"}]}
            platform.http.post("/chat/completions", json=body)

    threads = [threading.Thread(target=call) for _ in range(_CALLS)]
    for one in threads:
        one.start()
    try:
        yield
    finally:
        over.set()
        for one in threads:
            one.join()


def _take(platform: Platform, path: str, name: str) -> None:
    key = (platform.data / "key").read_text().strip()
    with running() as browser, opened(browser, platform.url, key, viewport={"width": 1280, "height": 820}) as page:
        page.goto(path)
        until(lambda: page.locator("svg").count() > 0, f"{path} shows its picture", 30)
        page.wait_for_timeout(3_000)  # so that its stream has moved it
        page.screenshot(path=FOLDER / name)


if __name__ == "__main__":
    main()
