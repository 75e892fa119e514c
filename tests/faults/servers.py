"""Servers that a test may kill: a PostgreSQL and a Valkey of its own, which start again on the same folder or port."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
import redis

from penstock.stack import postgres, valkey
from penstock.stack.child import Child
from penstock.store.migrate import upgrade


class Killable:
    """One server process that may be killed, until the end of its `with`."""

    _child: Child

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.stop()

    @property
    def pid(self) -> int:
        """The process that runs now."""
        pid = self._child.pid
        assert pid is not None, "it does not run"
        return pid

    def kill(self, how: int) -> None:
        """End it by this signal, and see it gone."""
        os.kill(self.pid, how)
        assert self._child.wait(20), f"{self._child.name} does not end"


class PostgresServer(Killable):
    """A migrated PostgreSQL, from `with` to its end."""

    def __init__(self, folder: Path, data: Path | None = None) -> None:
        """In this folder with a short path; its data elsewhere if told so (a small disk)."""
        self.data, self.sockets = data or folder / "pg", folder / "pgs"
        self.socket = self.sockets / ".s.PGSQL.5432"
        self.url = postgres.url(self.sockets)
        self._child = postgres.child(self.data, self.sockets, folder / "pg.log")

    def __enter__(self) -> Self:
        postgres.prepare(self.data, self.sockets)
        with (self.data / "postgresql.conf").open("a") as file:
            # The machine does not lose its power here, so nothing is waited for; what is committed outlives a kill
            # of the server all the same, unlike with synchronous_commit off.
            file.write("\nfsync = off\n")
        self.start()
        upgrade(self.url)
        return self

    def start(self) -> None:
        """Run it, and wait until it answers."""
        self._child.start()
        postgres.wait_until_ready(self._child, self.url)

    def end(self, how: int = signal.SIGQUIT) -> None:
        """End it at once, as a crash does: no checkpoint, no farewell to its clients (or by another signal)."""
        self.kill(how)

    def proxied(self, port: int) -> str:
        """Its URL through a proxy on this port."""
        return f"postgresql://postgres@127.0.0.1:{port}/postgres"

    def ask(self, query: str, *values: object) -> object:
        """One value, not through any proxy."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(query, values).fetchone()  # type: ignore[arg-type]
            return row[0] if row else None


class ValkeyServer(Killable):
    """A Valkey with nothing on disk, from `with` to its end: whoever kills it loses its data."""

    def __init__(self, folder: Path) -> None:
        self.address = valkey.new_address()
        self.url = self.address.url
        self._child = valkey.child(self.address, folder / "valkey", folder / "valkey.log")
        self.client = redis.Redis.from_url(self.url, socket_timeout=5)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        super().__exit__(kind, error, trace)

    def start(self) -> None:
        """Run it, empty, and wait until it answers."""
        self._child.start()
        valkey.wait_until_ready(self._child, self.address)

    def end(self, how: int = signal.SIGKILL) -> None:
        """End it."""
        self.kill(how)

    def stop(self) -> None:
        """Freeze it: connections stay, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def cont(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    @contextmanager
    def emptied(self, every_seconds: float) -> Iterator[None]:
        """FLUSHALL in a row, the first at once."""
        stop = threading.Event()

        def run() -> None:
            self.client.flushall()
            while not stop.wait(every_seconds):
                self.client.flushall()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def proxied(self, port: int) -> str:
        """Its URL through a proxy on this port."""
        return f"redis://:{self.address.password}@127.0.0.1:{port}/0"
