"""Io workers and Postgres are killed during deliveries: each event comes at least once, none is invented."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from faults.cases import further
from faults.servers import PostgresServer
from sqlalchemy import text
from store.world import World
from worker.receiver import Receiver

from penstock.domain.webhook import EVENT_TYPES
from penstock.service.webhooks import endpoints
from penstock.settings import Settings
from penstock.store import deliveries

pytestmark = pytest.mark.timeout(240)

EVENTS = 60


@contextmanager
def io_worker(url: str, folder: Path, failpoints: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """An io worker without Redis."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")} | {
        "PENSTOCK_DATABASE_URL": url,
        "PENSTOCK_REDIS_URL": "redis://127.0.0.1:1/0",
        "PENSTOCK_BLOB_URL": f"file://{folder}/blobs",
        "PENSTOCK_SCRATCH_DIR": str(folder),
        "PENSTOCK_OUTBOUND_ALLOW": "127.0.0.0/8",
        "PENSTOCK_WEBHOOK_TIMEOUT_SECONDS": "1",
        "PENSTOCK_WEBHOOK_RECEIVER_CONCURRENCY": "8",
        # The receiver is in our own process: while that stalls, attempts are given up after a second each.
        "PENSTOCK_WEBHOOK_WAITS_SECONDS": f"[0{', 0.1' * 11}]",
        "PENSTOCK_SECRET_KEYS": os.environ["PENSTOCK_SECRET_KEYS"],
        "PENSTOCK_FAILPOINTS": failpoints,
    }
    with (folder / "io.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock_worker", "io"], env=environment, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(20)


def owe(world: World, receiver: Receiver) -> set[str]:
    """Ended jobs whose events are owed to an endpoint; the ids of the events."""
    world.db.run(endpoints.create, "acme", "", receiver.url("/hook"), EVENT_TYPES, None, world.settings)
    world.sql(
        """
        insert into batches (id, tenant, kind, inline, state, finish_as, endpoint, lane, completion_window, deadline)
        select 'job_' || n, 'acme', 'job', true, 'cancelled', 'cancelled', '/v1/chat/completions', 'standard', '24h',
               now() from generate_series(1, :count) n""",
        count=EVENTS,
    )

    def happen(tx: Any) -> list[str]:
        made = text("""
            insert into events (id, tenant, batch, type)
            select 'evt_' || id, tenant, id, 'batch.cancelled' from batches returning id""")
        ids = [row.id for row in tx.conn.execute(made)]
        deliveries.owe(tx.conn, ids)
        return ids

    return set(world.db.run(happen))


def delivered(url: str) -> int:
    with suppress(psycopg.Error), psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        row = connection.execute("select count(*) from deliveries where state = 'delivered'").fetchone()
        return int(row[0]) if row else 0
    return 0


def until_all_delivered(url: str, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while delivered(url) < EVENTS:
        assert time.monotonic() < end, f"{delivered(url)} of {EVENTS} delivered"
        time.sleep(0.1)


@pytest.mark.parametrize("point", ["delivery.answered@5", *further("delivery.claimed", "delivery.recorded@2")])
def test_an_io_worker_that_is_killed_during_deliveries_leaves_the_rest_to_the_next(
    database_url: str, tmp_path: Path, point: str
) -> None:
    world = World(database_url, Settings(database_url=database_url))
    name, _, at = point.partition("@")
    with Receiver() as receiver:
        events = owe(world, receiver)
        armed = f"{name}=kill" + (f"@{at}" if at else "")
        with io_worker(database_url, tmp_path, armed) as first:
            assert first.wait(60) == -signal.SIGKILL
        with io_worker(database_url, tmp_path):
            until_all_delivered(database_url)
        assert {got.id for got in receiver.got} == events
        assert len({(got.id, got.body) for got in receiver.got}) == EVENTS
    world.close()


@pytest.mark.slow
def test_a_postgres_that_is_killed_during_deliveries_loses_and_invents_none(short_dir: Path, tmp_path: Path) -> None:
    folder = short_dir / "hooks"
    folder.mkdir()
    with PostgresServer(folder) as server, Receiver() as receiver:
        world = World(server.url, Settings(database_url=server.url))
        events = owe(world, receiver)
        receiver.answers("/hook", *[503, 200] * 40, 200)
        with io_worker(server.url, tmp_path) as process:
            for count in (5, 30):
                receiver.wait("/hook", count, 60)
                server.end()
                server.start()
            until_all_delivered(server.url)
            assert process.poll() is None, "the worker outlives it"
        assert {got.id for got in receiver.got} == events
        world.close()
