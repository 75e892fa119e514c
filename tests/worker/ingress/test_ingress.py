"""A worker says where waiting calls may come in, and for which names; without a token nobody may."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from worker.engines import wait_ready
from worker.ingresses import calling, chat, engine_of_its_own, soon

from penstock.domain.calls.ingress import Ingress
from penstock.domain.work.holder import Holder
from penstock.service.calls import ingresses
from penstock.service.core.transaction import Database
from penstock.service.lifecycle import work
from penstock.settings import Settings
from penstock.store.engine import sync_engine
from penstock_worker.budget.meter import Meter
from penstock_worker.ingress.ingress import WorkerIngress


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    one = Database(sync_engine(database_url, 3), lambda hints: None)
    yield one
    one.close()


@pytest.fixture
def holder(db: Database) -> Holder:
    """A gpu worker that starts."""
    one = Holder(uuid.uuid4(), "gpu", "echo", "host", 1)
    db.run(work.register, one, "starting", 8)
    return one


def test_calls_come_for_the_model_and_its_adapters_once_the_engine_lists_them(
    short_dir: Path, db: Database, holder: Holder
) -> None:
    more = ("--max-num-seqs=8", "--lora-modules", "one=/some/path")
    with (
        engine_of_its_own(short_dir, *more, load_report_seconds=0.1, region="here") as engine,
        WorkerIngress(db, holder, engine, Meter()) as ingress_of,
    ):
        wait_ready(engine.supervisor, 60)
        ingress_of.announce()
        db.run(work.mark, holder, "ready", engine.settings)

        def found() -> tuple[Ingress, ...]:
            return db.run(ingresses.table, Settings()).ingresses

        [ingress] = calling("", lambda _: soon(lambda: [ingress for ingress in found() if ingress.load.open]))
        assert (ingress.serves, ingress.region, ingress.slots) == (("echo", "one"), "here", 8 + 2 + 4)
        assert (ingress.load.budget, ingress.load.lines, ingress.load.calls) == (8, 0, 0)
        assert calling(ingress.url, lambda one: one.refusal(chat("hi") | {"model": "one"})) == (200, None)
        ingress_of.drain()
        calling("", lambda _: soon(lambda: not found()[0].load.open))


def test_a_rolling_rotation_of_the_token_refuses_nobody(short_dir: Path, db: Database, holder: Holder) -> None:
    """Ingresses accept the new one beside the old, then APIs show it, then ingresses forget the old."""
    for accepted, shown in (("old", "old"), ("old,new", "old"), ("old,new", "new"), ("new", "new")):
        with (
            engine_of_its_own(short_dir, ingress_token=accepted) as engine,
            WorkerIngress(db, holder, engine, Meter()) as ingress_of,
        ):
            ingress_of.announce()
            url = db.run(lambda tx: tx.conn.exec_driver_sql("select ingress_url from workers").scalar())
            given = {shown: 200, "": 401, "old,new": 401, "other": 401, "old" if accepted == "new" else "new,": 401}
            for token, status in given.items():
                assert calling(url, lambda one, token=token: one.get("/health", token=token))[0] == status


@pytest.mark.parametrize("token", [None, ""])
def test_without_a_token_nobody_comes_in_and_the_log_says_so_once(
    short_dir: Path, db: Database, holder: Holder, token: str | None
) -> None:
    with engine_of_its_own(short_dir, ingress_token=token) as engine, capture_logs() as logs:
        wait_ready(engine.supervisor, 60)
        with WorkerIngress(db, holder, engine, Meter()) as ingress_of:
            ingress_of.announce()
            db.run(work.mark, holder, "ready", engine.settings)
            assert not ingress_of.holds
            ingress_of.drain()
    assert [line["event"] for line in logs].count("no_ingress") == 1
    assert db.run(lambda tx: tx.conn.exec_driver_sql("select ingress_url from workers").scalar()) is None


def test_a_door_that_listens_everywhere_is_reached_by_the_machines_name(
    short_dir: Path, db: Database, holder: Holder
) -> None:
    for given, start in (
        ({"ingress_host": "0.0.0.0"}, "http://"),
        ({"ingress_url": "https://ingress.example"}, "https://ingress"),
    ):
        with engine_of_its_own(short_dir, **given) as engine, WorkerIngress(db, holder, engine, Meter()) as ingress_of:
            ingress_of.announce()
            url = db.run(lambda tx: tx.conn.exec_driver_sql("select ingress_url from workers").scalar())
            assert url.startswith(start)
            assert "0.0.0.0" not in url
