"""A network between a process and PostgreSQL that is cut, half-open or silent is noticed in bounded time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
from faults.proxy import Proxy
from sqlalchemy import text

from penstock.domain.api_errors import Unavailable
from penstock.service.core.transaction import AsyncDatabase, Database, Transaction
from penstock.store.engine import (
    ANSWER_SECONDS,
    CONNECT_SECONDS,
    FIRST_ANSWER_SECONDS,
    TCP_SECONDS,
    async_engine,
    sync_engine,
)

_PING_SECONDS = FIRST_ANSWER_SECONDS + CONNECT_SECONDS
"""A connection from the pool does not answer, and a new one can't be had."""
_SLACK_SECONDS = 2.5


def ask(tx: Transaction, then: Callable[[], None] | None = None) -> int:
    one = tx.conn.execute(text("select 1")).scalar_one()
    if then is not None:
        then()
        tx.conn.execute(text("select 2"))
    return int(one)


@contextmanager
def between(postgres_url: str) -> Iterator[tuple[Proxy, str]]:
    """A network to the session's server, and the URL through it."""
    folder = parse_qs(urlparse(postgres_url).query)["host"][0]
    with Proxy(Path(folder) / ".s.PGSQL.5432") as network:
        yield network, f"postgresql://postgres@127.0.0.1:{network.port}/postgres"


def seconds_until_unavailable(postgres_url: str, breaks: Callable[[Proxy], None], midway: bool) -> float:
    """Break the network between two use cases (or within one); seconds until one is refused. Then all is well again."""
    with between(postgres_url) as (network, url):
        db = Database(sync_engine(url, connections=1), lambda hints: None)
        assert db.run(ask) == 1
        if not midway:
            breaks(network)
        began = time.monotonic()
        with pytest.raises(Unavailable):
            db.run(ask, (lambda: breaks(network)) if midway else None)
        seconds = time.monotonic() - began
        network.heal()
        assert db.run(ask) == 1, "the first use case after it works"
        db.close()
    return seconds


def on_an_event_loop(postgres_url: str, breaks: Callable[[Proxy], None], midway: bool) -> float:
    """The same as the API does it."""

    async def measure() -> float:
        with between(postgres_url) as (network, url):
            db = AsyncDatabase(async_engine(url, connections=1), lambda hints: None)
            assert await db.run(ask) == 1
            if not midway:
                breaks(network)
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await db.run(ask, (lambda: breaks(network)) if midway else None)
            seconds = time.monotonic() - began
            network.heal()
            assert await db.run(ask) == 1, "the first use case after it works"
            await db.close()
        return seconds

    return asyncio.run(measure())


Measured = dict[tuple[str, bool, bool], Future[float]]


@pytest.fixture(scope="module")
def measured(postgres_url: str) -> Iterator[Measured]:
    """All of it at once, since it is waiting: by what breaks, whether midway, and whether on an event loop."""
    with ThreadPoolExecutor(12) as pool:
        yield {
            (name, midway, loop): pool.submit(
                on_an_event_loop if loop else seconds_until_unavailable, postgres_url, breaks, midway
            )
            for name, breaks in (("cut", Proxy.cut), ("hang", Proxy.hang), ("vanish", Proxy.vanish))
            for midway in (False, True)
            for loop in (False, True)
        }


@pytest.mark.parametrize("loop", [False, True], ids=["thread", "loop"])
class TestGivenUp:
    """What raises Unavailable, and after how long."""

    def test_a_cut_is_noticed_at_once(self, measured: Measured, loop: bool) -> None:
        assert measured["cut", False, loop].result() < _SLACK_SECONDS
        assert measured["cut", True, loop].result() < _SLACK_SECONDS

    def test_a_pooled_connection_that_hangs_is_given_up_by_its_ping(self, measured: Measured, loop: bool) -> None:
        assert measured["hang", False, loop].result() < _PING_SECONDS + _SLACK_SECONDS

    def test_a_statement_whose_answer_never_comes_is_given_up(self, measured: Measured, loop: bool) -> None:
        assert ANSWER_SECONDS <= measured["hang", True, loop].result() < ANSWER_SECONDS + _SLACK_SECONDS

    def test_a_server_that_vanished_is_given_up_by_tcp(self, measured: Measured, loop: bool) -> None:
        assert measured["vanish", False, loop].result() < _PING_SECONDS + _SLACK_SECONDS
        assert measured["vanish", True, loop].result() < TCP_SECONDS + _SLACK_SECONDS
