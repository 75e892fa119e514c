"""Events of batches: who watches has each change, and all who watch cost one statement a second."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from api.live import KEY, create, error, http, serving, upload
from api.statements import looks

from penstock.service.admin import keys
from penstock.service.control import cancel
from penstock.service.core.transaction import Database
from penstock.settings import Settings


async def events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The data of each event."""
    async for line in answer.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line[6:])


class Viewer:
    """One who watches a batch, on a loop of the test's."""

    def __init__(self, client: httpx.AsyncClient, batch: str) -> None:
        self.client = client
        self.batch = batch
        self.had: list[dict[str, Any]] = []
        self.began = asyncio.Event()

    async def watch(self) -> None:
        async with self.client.stream("GET", f"/v1/batches/{self.batch}/events") as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            async for one in events(answer):
                self.had.append(one)
                self.began.set()


def async_client(url: str, key: str = KEY) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=500)
    headers = {"authorization": f"Bearer {key}", "last-event-id": "7"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=60, trust_env=False, limits=limits)


@pytest.mark.slow
def test_all_who_watch_cost_one_statement_a_second_and_each_hears_the_end(
    client: httpx.Client, url: str, db: Database, model: str
) -> None:
    """200 on one batch, and one on each of 50: between two looks nobody asks anything."""
    file = upload(client)["id"]
    batches = [create(client, file)["id"] for _ in range(51)]

    async def watched() -> None:
        async with async_client(url) as one:
            viewers = [Viewer(one, batches[0]) for _ in range(200)] + [Viewer(one, batch) for batch in batches[1:]]
            watching = [asyncio.create_task(viewer.watch()) for viewer in viewers]
            await asyncio.gather(*(viewer.began.wait() for viewer in viewers))
            with looks() as sent:
                began = time.monotonic()
                assert await asyncio.to_thread(sent.four.wait, 60)
                took = time.monotonic() - began
            assert took > 2.9, "of four looks each is a second after the one before"
            assert len(set(sent)) == 1, sent
            assert {len(viewer.had) for viewer in viewers} <= {1, 2}, "nothing changed but what is known of its speed"
            for batch in batches:
                await asyncio.to_thread(db.run, cancel.cancel, keys.BOOTSTRAP_TENANT, "batch", batch)
            await asyncio.gather(*watching)
            for viewer in viewers:
                assert (viewer.had[-1]["id"], viewer.had[-1]["ended"]) == (viewer.batch, True)
                assert viewer.had[0]["waiting"]["reason"] == "no_io_worker"

    asyncio.run(watched())


def test_a_stream_ends_with_its_key_and_with_its_process_and_is_nobody_elses(
    settings: Settings, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.api.routes.batch_events._KEY_SECONDS", 0.2)
    settings = settings.model_copy(update={"key_cache_seconds": 0.2})
    with serving(settings) as url, http(url) as client:
        batch = create(client, upload(client)["id"])["id"]
        _, foreign = db.run(keys.create, "stranger", "test")
        with http(url, foreign) as stranger:
            error(stranger.get(f"/v1/batches/{batch}/events"), 404)
        error(client.get(f"/v1/jobs/{batch}/events"), 404)
        assert client.head(f"/v1/batches/{batch}/events").content == b""
        id, key = db.run(keys.create, keys.BOOTSTRAP_TENANT, "short")
        had: list[str] = []
        started, over = threading.Event(), threading.Event()

        def listen(key: str) -> None:
            headers = {"authorization": f"Bearer {key}"}
            with httpx.stream("GET", f"{url}/v1/batches/{batch}/events", headers=headers, timeout=60) as answer:
                for line in answer.iter_lines():
                    had.append(line)
                    started.set()
            over.set()

        thread = threading.Thread(target=listen, args=[key])
        thread.start()
        assert started.wait(20)
        db.run(keys.revoke, keys.BOOTSTRAP_TENANT, id)
        assert over.wait(20), "its key is gone"
        thread.join()
        started.clear(), over.clear()
        thread = threading.Thread(target=listen, args=[KEY])
        thread.start()
        assert started.wait(20)
    assert over.wait(1), "the process has ended, and its stream before it"
    thread.join()
    assert "event: batch" in had
    assert "id: 1" in had


def test_a_stream_of_all_that_is_open_has_each_until_it_ends(client: httpx.Client, db: Database) -> None:
    file = upload(client)["id"]
    first, second = (create(client, file)["id"] for _ in range(2))
    with client.stream("GET", "/v1/batches/events") as answer:
        told = (json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: "))
        event = next(told)
        assert event["object"] == "batches.event"
        assert [one["id"] for one in event["data"]] == [second, first], "the newest first"
        assert event["data"][0]["usage"]["total_tokens"] == 0
        db.run(cancel.cancel, keys.BOOTSTRAP_TENANT, "batch", second)
        assert any([one["id"] for one in event["data"]] == [first] for event in told)
    assert client.head("/v1/jobs/events").status_code == 200
