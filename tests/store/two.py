"""Two transactions at once: one is held open at a chosen point while the other runs until it is done or blocked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, event, text
from store.world import World

from penstock.service.core.transaction import Transaction

Use = Callable[[Transaction], Any]

_WAITS = text("""
    select count(*) from pg_stat_activity
    where datname = current_database() and cardinality(pg_blocking_pids(pid)) > 0""")


class Held:
    """A use case on a connection of its own, stopped after its nth statement (or, with None, before its commit)."""

    def __init__(self, world: World, use: Use, after: int | None = None) -> None:
        self._world = world
        self._use = use
        self._after = after
        self._stopped = threading.Event()
        self._go = threading.Event()
        self.statements = 0

    def __call__(self) -> Any:
        """Run it; for a thread."""
        try:
            with self._world.db.engine.connect() as conn, conn.begin():
                event.listen(conn, "after_cursor_execute", self._count)
                result = self._use(Transaction(conn))
                if self._after is None:
                    self._stop()
            return result
        finally:
            self._stopped.set()

    def _count(self, conn: Connection, *_: Any) -> None:
        self.statements += 1
        if self.statements == self._after:
            self._stop()

    def _stop(self) -> None:
        self._stopped.set()
        assert self._go.wait(30), "nobody let it go on"

    def until_stopped(self) -> None:
        """Return once it is at its point."""
        assert self._stopped.wait(30), "it did not come to its point"

    def go_on(self) -> None:
        """Let it run to its end."""
        self._go.set()


def until_done_or_blocked(world: World, running: Future[Any], waiters: int = 1) -> bool:
    """Return once it is done or so many transactions wait for another's lock; True if they wait."""
    finished = threading.Event()
    running.add_done_callback(lambda _: finished.set())
    with world.db.engine.connect() as conn:
        look = conn.execution_options(isolation_level="AUTOCOMMIT")
        while not finished.wait(0.002):
            if look.execute(_WAITS).scalar_one() >= waiters:
                return True
    return False


@contextmanager
def held(world: World, use: Use) -> Iterator[tuple[ThreadPoolExecutor, Held]]:
    """Hold a use case open before its commit, for the length of the block at most."""
    first = Held(world, use)
    with ThreadPoolExecutor(4) as pool:
        running = pool.submit(first)
        first.until_stopped()
        try:
            yield pool, first
        finally:
            first.go_on()
        running.result(30)


def interleave(world: World, first: Use, second: Use, after: int | None) -> tuple[Any, Any, int]:
    """Run the second while the first is held; what each returned or raised, and the first's count of statements."""
    one = Held(world, first, after)
    with ThreadPoolExecutor(2) as pool:
        a = pool.submit(one)
        one.until_stopped()
        b = pool.submit(world.db.run, second)
        until_done_or_blocked(world, b)
        one.go_on()
        results = tuple(future.exception(30) or future.result() for future in (a, b))
    return results[0], results[1], one.statements
