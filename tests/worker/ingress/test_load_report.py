"""A worker's pulse: routers see its load, it hears what was promised, and it survives a database's absence."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from faults.proxy import Proxy
from sqlalchemy.engine import make_url

from penstock.domain.calls.ingress import Load, Slo
from penstock.domain.work.holder import Holder
from penstock.service.calls import ingresses
from penstock.service.core.transaction import Database
from penstock.service.lifecycle import work
from penstock.settings import Settings
from penstock.store.engine import sync_engine
from penstock.store.fleet import models
from penstock_worker.ingress.load_report import LoadReport

LOAD = Load(open=True, calls=3, lines=40, budget=112, reason="kv", tokens_per_second=1234.5)
SETTINGS = Settings(region="here")


@dataclass
class Promised:
    """Who keeps what was promised."""

    slo: Slo


@pytest.fixture
def network(database_url: str) -> Iterator[Proxy]:
    """What lies between the worker and Postgres."""
    url = make_url(database_url)
    with Proxy(Path(str(url.query["host"])) / ".s.PGSQL.5432") as proxy:
        yield proxy


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    one = Database(sync_engine(database_url, 2), lambda hints: None)
    yield one
    one.close()


@pytest.fixture
def holder(db: Database) -> Holder:
    """A gpu worker that is ready, with an ingress."""
    holder = Holder(uuid.uuid4(), "gpu", "tiny", "host", 1)
    db.run(work.register, holder, "starting", 112)
    db.run(ingresses.announce, holder, "http://there:8400", ["tiny", "an-adapter"], 128, SETTINGS)
    db.run(work.mark, holder, "ready", SETTINGS)
    return holder


@pytest.fixture
def far(database_url: str, network: Proxy) -> Iterator[Database]:
    """The same database, through the network."""
    url = make_url(database_url).set(host="127.0.0.1", port=network.port, query={})
    one = Database(sync_engine(url.render_as_string(hide_password=False), 1), lambda hints: None)
    yield one
    one.close()


def until(look: Callable[[], Any], seconds: float = 20.0) -> Any:
    end = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.01)
    return seen


def page(db: Database) -> list[Any]:
    return list(db.run(ingresses.table, SETTINGS).ingresses)


def test_a_router_sees_the_door_and_its_load(db: Database, holder: Holder) -> None:
    assert page(db) == []
    with LoadReport(db, holder, lambda: LOAD, Promised(Slo()), load_report_seconds=60):
        [ingress] = until(lambda: page(db))
    assert (ingress.worker, ingress.model, ingress.serves) == (holder.id, "tiny", ("tiny", "an-adapter"))
    assert (ingress.url, ingress.region, ingress.slots) == ("http://there:8400", "here", 128)
    assert ingress.load == LOAD


def test_a_change_is_said_at_once(db: Database, holder: Holder) -> None:
    loads = [LOAD]
    with LoadReport(db, holder, lambda: loads[0], Promised(Slo()), load_report_seconds=60) as pulse:
        until(lambda: page(db) and page(db)[0].load.open)
        loads[0] = replace(LOAD, open=False)
        pulse.at_once()
        until(lambda: not page(db)[0].load.open)


def test_a_promise_is_heard_with_the_next_pulse(db: Database, holder: Holder) -> None:
    promised = Promised(Slo())
    with LoadReport(db, holder, lambda: LOAD, promised, load_report_seconds=0.05):
        with db.engine.begin() as connection:
            models.promise(connection, "tiny", ttft_p95_ms=300, itl_p95_ms=None)
        until(lambda: promised.slo == Slo(300, None))


def test_a_worker_that_ends_is_on_no_routers_table_whatever_its_pulse_says(db: Database, holder: Holder) -> None:
    with LoadReport(db, holder, lambda: LOAD, Promised(Slo()), load_report_seconds=0.05):
        until(lambda: page(db))
        db.run(work.mark, holder, "draining", SETTINGS)
        assert page(db) == []
        db.run(work.mark, holder, "ready", SETTINGS)  # said before, and late
        db.run(work.mark, holder, "starting", SETTINGS)
        assert db.run(lambda tx: tx.conn.exec_driver_sql("select state from workers").scalar()) == "draining"
        db.run(work.mark, holder, "gone", SETTINGS)
        db.run(work.mark, holder, "draining", SETTINGS)
        assert db.run(lambda tx: tx.conn.exec_driver_sql("select state from workers").scalar()) == "gone"


def test_it_survives_the_databases_absence_and_keeps_the_last_promise(
    db: Database, far: Database, network: Proxy, holder: Holder
) -> None:
    with db.engine.begin() as connection:
        models.promise(connection, "tiny", ttft_p95_ms=300, itl_p95_ms=None)
    promised = Promised(Slo())
    calls: list[int] = []

    def load() -> Load:
        calls.append(1)
        return replace(LOAD, calls=len(calls))

    with LoadReport(far, holder, load, promised, load_report_seconds=0.05):
        until(lambda: promised.slo == Slo(300, None))
        network.cut()
        said = len(calls)
        until(lambda: len(calls) > said + 5)
        assert promised.slo == Slo(300, None)
        network.heal()
        seen = page(db)[0].load.calls
        until(lambda: page(db)[0].load.calls > seen)
