"""Connections: SQLAlchemy engines over psycopg 3, set up the same way in every process; a dead one is soon noticed.

Three ways in which a server is gone, and what notices each:

- it refuses or resets (restart, crash): the call fails at once; the ping at the next checkout finds what else is dead.
- no packet comes back (power, network): TCP itself, after TCP_SECONDS, for what is sent and for what is only awaited.
- packets are acknowledged and nothing is answered (a stopped server, a stuck proxy): only a clock of ours notices.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, Final, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.waiting import Ready, Wait
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

R = TypeVar("R")

CONNECT_SECONDS: Final = 5
"""Longest wait for a connection, TCP and log-in."""
TCP_SECONDS: Final = 10
"""Longest time that a peer may acknowledge nothing: half a lease, so that a beat still has a second try."""
FIRST_ANSWER_SECONDS: Final = 5.0
"""Longest wait for the answer to a ping, a BEGIN or a statement without one, which wait for nobody's lock."""
ANSWER_SECONDS: Final = 15.0
"""Longest wait for any other answer. It is longer than a stopped client may hold a lock (10 s, store/migrate.py), so
that whoever waits for a lock is not taken for one whose server is gone."""

_TCP: Final = {
    "keepalives": 1,
    # Probes for a connection on which an answer is awaited: 4 + 3 × 2 s.
    "keepalives_idle": TCP_SECONDS - 6,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    # For a connection with something sent: Linux would try again for a quarter of an hour. In milliseconds.
    "tcp_user_timeout": TCP_SECONDS * 1000,
}


def _bounded(
    connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], steps: Generator[Wait, Ready | int, R]
) -> Generator[Wait, Ready | int, R]:
    """Pass psycopg's own steps on, and give the connection up when the server says nothing for too long.

    psycopg wakes its generators every 0.1 s with nothing ready; libpq has no such clock.
    """
    pgconn = connection.pgconn
    idle = pgconn.transaction_status == TransactionStatus.IDLE
    end = time.monotonic() + (FIRST_ANSWER_SECONDS if idle else ANSWER_SECONDS)
    try:
        wait = next(steps)
        while True:
            ready = yield wait  # None where psycopg goes on waiting after it was interrupted
            if ready and ready & Ready.R:
                end = time.monotonic() + ANSWER_SECONDS
            elif time.monotonic() > end:
                pgconn.finish()  # without a word to the server: what it did with the statement stays unknown
                raise psycopg.OperationalError("the server gives no answer")
            wait = steps.send(ready)
    except StopIteration as done:
        answer: R = done.value
        return answer


class _Connection(psycopg.Connection[Any]):
    """A connection whose waits end."""

    def wait(self, gen: Generator[Wait, Ready | int, R], *args: Any, **kwargs: Any) -> R:
        return super().wait(_bounded(self, gen), *args, **kwargs)


class _AsyncConnection(psycopg.AsyncConnection[Any]):
    """The same for an event loop."""

    async def wait(self, gen: Generator[Wait, Ready | int, R], *args: Any, **kwargs: Any) -> R:
        return await super().wait(_bounded(self, gen), *args, **kwargs)


def _url(database_url: str) -> URL:
    return make_url(database_url).set(drivername="postgresql+psycopg")


def _options(connections: int) -> dict[str, Any]:
    return {
        "pool_size": connections,
        "max_overflow": 0,
        "pool_timeout": 10,
        # After a restart all of a pool is dead, and says so at the first ping: no use case meets it.
        "pool_pre_ping": True,
        "connect_args": {
            # No prepared statements: a pooler in transaction mode may hand out another server connection.
            "prepare_threshold": None,
            "connect_timeout": CONNECT_SECONDS,
            "application_name": "penstock",
            **_TCP,
        },
    }


def sync_engine(database_url: str, connections: int, *, patient: bool = False) -> Engine:
    """An engine for processes with threads. At most `connections` are open.

    A `patient` one waits for answers without end: migrations, which wait for each other and rewrite tables.
    """
    engine = create_engine(_url(database_url), **_options(connections))
    if not patient:

        @event.listens_for(engine, "do_connect")
        def connect(_: object, __: object, args: list[Any], values: dict[str, Any]) -> _Connection:
            return _Connection.connect(*args, **values)

    return engine


def async_engine(database_url: str, connections: int) -> AsyncEngine:
    """An engine for the API's event loop. At most `connections` are open."""
    options = _options(connections)
    options["connect_args"]["async_creator_fn"] = _AsyncConnection.connect
    return create_async_engine(_url(database_url), **options)
