"""Waiting calls of versions that are asleep in a pool: they wake what is on demand, and wait for it within bounds."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from api.live import CHAT, chat, error, http
from api.scripted_ingress import ANSWER, TOKEN, ScriptedIngress
from e2e.live import until
from pydantic import SecretStr
from sqlalchemy import text

from penstock.domain.models.version import Definition
from penstock.domain.work.holder import Holder
from penstock.service.core.transaction import Database
from penstock.service.lifecycle import work
from penstock.service.models import versions
from penstock.service.pools import pools, residents
from penstock.service.pools.pools import WantedMember
from penstock.settings import Settings


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A quick table, ingresses that need pulse only once, and four calls that may wait for versions to wake."""
    quick = {"ingress_gone_seconds": 600.0, "load_report_seconds": 0.2, "key_cache_seconds": 0.0, "wake_calls": 4}
    return settings.model_copy(update=quick | {"ingress_token": SecretStr(TOKEN)})


@pytest.fixture
def host(db: Database) -> Holder:
    """A live host of a pool with an on-demand version, and one that is not."""
    for model in ("tiny", "other"):
        db.run(versions.add, model, Definition(f"/{model}", "echo"))
    members = [WantedMember("tiny", on_demand=True), WantedMember("other")]
    db.run(pools.create, "a", members, terms={"call_bound_seconds": 20.0})
    holder = Holder(uuid.uuid4(), "pool", None, "machine", 1, "a")
    db.run(work.register, holder, "ready", 0)
    return holder


@pytest.fixture
def api(host: Holder, url: str) -> Iterator[httpx.Client]:
    """A client of an API that knows the pool."""
    with http(url) as client:
        until(lambda: error(ask(client, "other"), 503)["code"] == "asleep", "the table has the pool")
        yield client


def ask(client: httpx.Client, model: str = "tiny", **more: object) -> httpx.Response:
    return client.post(CHAT, json={"model": model, **chat(), **more})


def wanted(db: Database) -> list[str]:
    return db.run(lambda tx: [row.queue for row in tx.conn.execute(text("select queue from pool_wants"))])


def in_flight(client: httpx.Client) -> int:
    """Waiting calls of this API process."""
    found = re.search(r"^penstock_calls_in_flight (\d+)", client.get("/metrics").text, re.MULTILINE)
    return int(found[1]) if found else 0


def test_a_call_wakes_an_on_demand_version_and_is_answered_once_it_is_awake(
    api: httpx.Client, db: Database, settings: Settings, host: Holder, stranger: httpx.Client
) -> None:
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(ask, api), threads.submit(ask, api), threads.submit(ask, api, stream=True)]
        until(lambda: wanted(db) == ["tiny"], "it is wanted, once")
        until(lambda: in_flight(api) == 3, "three wait")
        assert "many calls wait" in error(ask(api), 503)["message"], "the last place is for who has none"
        calls.append(threads.submit(ask, stranger))
        until(lambda: in_flight(api) == 4, "another tenant waits, too")
        with ScriptedIngress(db, settings) as ingress:
            db.run(residents.put, host.id, "tiny", "awake", ingress.worker)
            assert [one.result(30).status_code for one in calls] == [200] * 4
            assert ask(api).content == ANSWER, "who is awake is asked at once"
        until(lambda: wanted(db) == [], "nobody waits any more")


def test_a_version_that_is_not_on_demand_is_a_503_at_once_that_says_so(api: httpx.Client, db: Database) -> None:
    answer = ask(api, "other")
    told = error(answer, 503)
    assert (told["code"], answer.headers["retry-after"]) == ("asleep", "60")
    assert "'other' is asleep in pool 'a', and calls don't wake it" in told["message"]
    assert wanted(db) == []


def test_a_call_waits_no_longer_than_the_pools_bound_and_a_switch(api: httpx.Client, db: Database) -> None:
    db.run(pools.change, "a", {"terms": {"call_bound_seconds": 1.0}})
    cost = "insert into switch_costs values ('', 'tiny', 'restart', '', 0.1)"
    db.run(lambda tx: tx.conn.execute(text(cost)))
    until(lambda: "did not wake within 1 s" in error(ask(api), 503)["message"], "the table has the new bound")
    answer = ask(api)
    assert (error(answer, 503)["code"], answer.headers["retry-after"]) == ("asleep", "30")
    until(lambda: wanted(db) == [], "it is not wanted any more")


def test_a_client_that_leaves_wants_nothing_any_more(api: httpx.Client, db: Database, url: str) -> None:
    left = threading.Event()

    def leave() -> None:
        with http(url) as client, pytest.raises(httpx.ReadTimeout):
            client.post(CHAT, json={"model": "tiny", **chat()}, timeout=2)
        left.set()

    thread = threading.Thread(target=leave)
    thread.start()
    until(lambda: wanted(db) == ["tiny"], "it is wanted")
    thread.join(30)
    assert left.is_set()
    until(lambda: wanted(db) == [], "it left")


def test_without_a_live_host_or_fit_version_nobody_waits(api: httpx.Client, db: Database) -> None:
    db.run(pools.unfit, "a", "tiny", "no weights")
    until(lambda: error(ask(api, "other"), 503)["code"] == "asleep", "the table is read")
    until(lambda: error(ask(api), 503)["code"] == "no_worker", "nobody can wake it")


def test_an_estimate_counts_the_switch_and_wakes_nobody(api: httpx.Client, db: Database) -> None:
    made = api.post("/v1/batches/estimate", json={"model": "tiny", "requests": [{"body": chat()}]})
    assert made.status_code == 200, made.text
    assert made.json()["seconds"]["expected"] > 3, "a start of its engine, by default"
    assert wanted(db) == []
