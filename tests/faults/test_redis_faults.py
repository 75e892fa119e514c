"""Redis that loses everything, hangs, is full or away: nobody waits for it, and hints are heard again after it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from celery import Celery
from e2e.live import ENDED, chat, said
from faults.cases import further
from faults.house import House
from faults.proxy import Proxy
from faults.servers import ValkeyServer

pytestmark = pytest.mark.timeout(240)

# How often it dies; more often by hand.
_DEATHS = int(os.environ.get("PENSTOCK_TEST_REDIS_DEATHS", "1"))
# Far longer than any answer takes, so that one that waited for Redis stands out on any machine.
_HINT_TIMEOUT_SECONDS = 5.0
_NEAR_SECONDS = 1.0
# A second of grace, five for Celery's goodbye, and a busy machine.
_ENDS_WITHIN_SECONDS = 25.0


@dataclass
class Site:
    """A house with a Redis of its own, over a network of its own."""

    house: House
    server: ValkeyServer
    network: Proxy

    def run(self, count: int = 400, text: str = "[[sleep 100]]", meanwhile: Callable[[], None] | None = None) -> str:
        """A batch, and each of its lines once; `meanwhile` is called when it is in progress."""
        client = self.house.client
        batch = client.submit([chat(f"line-{n}", f"say {n} {text}") for n in range(count)])
        if meanwhile is not None:
            client.watched(batch.id, lambda seen: seen.status == "in_progress", "in progress", 30)
            meanwhile()
        self.house.until(lambda: client.sdk.batches.retrieve(batch.id).status in ENDED, "the batch has ended", 60)
        batch = client.sdk.batches.retrieve(batch.id)
        assert batch.status == "completed"
        output = client.file(batch.output_file_id)
        assert [said(line) for line in output] == [f"say {n} {text}" for n in range(count)]
        assert self.house.ask("select sum(crashes) from slices where batch = %s", batch.id) == 0
        return batch.id

    def post_seconds(self, count: int = 60) -> list[float]:
        """How long so many creates of a job took, sorted."""
        body, took = {"messages": [{"role": "user", "content": "quick"}]}, []
        for _ in range(count):
            began = time.monotonic()
            self.house.client.http.post("/jobs", json={"model": "tiny", "body": body}).raise_for_status()
            took.append(time.monotonic() - began)
        return sorted(took)

    def hears(self, seconds: float = 40.0) -> None:
        """Return once Celery ran each kind of task again; what a worker found by its own look is no task."""
        kinds = {"generate": "lines 1–1 ·", "validate": "1 lines · 1 slices ·", "assemble": "completed ·"}
        heard: list[str] = []
        app = Celery("listener", broker=self.server.url, set_as_current=False)
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, {"task-succeeded": lambda event: heard.append(event["result"])})
            listener = threading.Thread(target=receiver.capture, kwargs={"timeout": 2 * seconds, "wakeup": False})
            listener.start()
            try:
                end = time.monotonic() + seconds
                while left := {kind for kind, said in kinds.items() if not any(said in one for one in heard)}:
                    assert time.monotonic() < end, f"hints are not heard again: {left}"
                    self.run(count=1, text="")
            finally:
                receiver.should_stop = True
                listener.join()


@pytest.fixture(scope="module")
def site(short_dir: Path, build: Callable[..., House]) -> Iterator[Site]:
    """One for all of this module: each fault is over at the end of its test."""
    with ValkeyServer(short_dir) as server, Proxy(("127.0.0.1", server.address.port)) as network:
        house = build(
            own={name: {"redis_url": server.proxied(network.port)} for name in ("api-1", "keeper-1", "io-1", "gpu-1")},
            poll_seconds="1",
            hint_again_seconds="1",
            hint_timeout_seconds=str(_HINT_TIMEOUT_SECONDS),
            close_grace_seconds="1",
        )
        yield Site(house, server, network)


@pytest.mark.slow
def test_a_redis_that_is_emptied_again_and_again_costs_nothing(site: Site) -> None:
    with site.server.emptied(every_seconds=0.3):
        site.run(1_500)
    site.hears()


def test_a_redis_that_dies_and_comes_back_empty_is_used_again(site: Site) -> None:
    for _ in range(_DEATHS):
        site.run(text="[[sleep 1000]]", meanwhile=site.server.end)
        site.run()
        site.server.start()
        site.hears()


def _hang(site: Site) -> None:
    site.network.hang()


def _vanish(site: Site) -> None:
    site.network.vanish()


def _cut(site: Site) -> None:
    site.network.cut()


def _pause(site: Site) -> None:
    site.server.client.execute_command("client", "pause", "10000", "all")  # nobody can end it before: ten seconds


def _full(site: Site) -> None:
    site.server.client.config_set("maxmemory", "1")


def _well(site: Site) -> None:
    site.network.heal()
    with redis.Redis.from_url(site.server.url, socket_timeout=15) as client:
        client.config_set("maxmemory", "256mb")


@pytest.mark.parametrize("fault", [_hang, *further(_vanish, _cut, _pause, _full)], ids=lambda fault: fault.__name__[1:])
def test_neither_batches_nor_callers_wait_for_a_redis_that_does_not_answer(
    site: Site, fault: Callable[[Site], None]
) -> None:
    undisturbed = site.post_seconds()
    fault(site)
    try:
        disturbed = site.post_seconds()
        site.run()
    finally:
        _well(site)
    p50, p99 = len(undisturbed) // 2, -1
    print(
        f"{fault.__name__}: p50 {undisturbed[p50] * 1e3:.0f} → {disturbed[p50] * 1e3:.0f} ms,"
        f" longest {undisturbed[p99] * 1e3:.0f} → {disturbed[p99] * 1e3:.0f} ms"
    )
    assert disturbed[p99] < undisturbed[p99] + _NEAR_SECONDS < _HINT_TIMEOUT_SECONDS
    site.hears()


@pytest.mark.slow
def test_every_process_ends_in_time_while_redis_hangs(site: Site) -> None:
    site.run(1)
    site.network.hang()
    # So that there is a hint to be said just now.
    site.post_seconds(3)
    names = list(site.house.residents)
    took = {}
    began = time.monotonic()
    for name in names:
        site.house.terminate(name)
    for name in names:
        assert site.house.wait(name, 60) == 0, site.house.tell(name)
        took[name] = round(time.monotonic() - began, 1)
    site.network.heal()
    for name in names:
        site.house.start(name)
    site.house.wait_until_ready()
    assert max(took.values()) < _ENDS_WITHIN_SECONDS
    site.hears()
