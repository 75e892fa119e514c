"""Steps: two transactions whose statements alternate as a schedule says; a lock that one waits for is found out.

The threads and connections are kept, so that an interleaving costs little more than its statements.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, create_engine, event
from store.world import World

from penstock.service.core.transaction import Database, Transaction

Use = Callable[[Transaction], Any]

_LONG_SECONDS: Final = 30
_SOON_SECONDS: Final = 0.002
"""A statement that takes no longer waits for nobody; only then is the database asked whether it does."""


class Actor:
    """One transaction at a time on a connection of its own, which waits before each statement and before its commit."""

    def __init__(self, world: World, changed: threading.Condition) -> None:
        self._engine = world.db.engine
        self._changed = changed
        self._conn: Connection | None = None
        self._pool = ThreadPoolExecutor(1)
        self._may_go = False
        self.waiting = False
        self.committing = False
        self.ended = True
        self.steps = 0
        self.pid = 0

    def begin(self, use: Use) -> Future[Any]:
        """Start a use case; it comes to its first statement."""
        self.waiting = self.ended = self.committing = self._may_go = False
        self.steps = 0
        return self._pool.submit(self._run, use)

    def _run(self, use: Use) -> Any:
        try:
            conn = self._connection()
            with conn.begin():
                result = use(Transaction(conn))
                self.committing = True
                self._wait()
            return result
        finally:
            with self._changed:
                self.ended = True
                self._changed.notify_all()

    def _connection(self) -> Connection:
        if self._conn is None or self._conn.invalidated:
            self._conn = self._engine.connect()
            self.pid = self._conn.connection.driver_connection.info.backend_pid
            event.listen(self._conn, "before_cursor_execute", self._wait)
        return self._conn

    def _wait(self, *_: Any) -> None:
        """Stand before a step until it is allowed."""
        with self._changed:
            self.waiting = True
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._may_go, _LONG_SECONDS), "nobody let it go on"
            self._may_go = False
            self.steps += 1

    def step(self) -> None:
        """Allow one step."""
        with self._changed:
            self._may_go = True
            self.waiting = False
            self._changed.notify_all()

    def close(self) -> None:
        """Close the connection and end the thread."""
        self._pool.submit(lambda: self._conn and self._conn.close()).result(_LONG_SECONDS)
        self._pool.shutdown()


class Stage:
    """Two actors and a schedule: which of them does the next step."""

    def __init__(self, world: World) -> None:
        self._changed = threading.Condition()
        self.actors = (Actor(world, self._changed), Actor(world, self._changed))
        url = world.db.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self.look = psycopg.connect(url, autocommit=True)
        # Half of what a batch's end costs is plans: here they are kept, as a pooler would not let the platform do it.
        quick = create_engine(world.db.engine.url, pool_size=1, connect_args={"prepare_threshold": 1})
        self.afterwards = Database(quick, lambda hints: None)
        """For what is done once the two have met."""

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self.actors:
            actor.close()
        self.afterwards.close()
        self.look.close()

    def play(self, first: Use, second: Use, schedule: Iterable[int]) -> tuple[list[Any], str]:
        """Run both; what each returned or raised, and what happened: `0` and `1` for steps, `(0)` for a wait.

        The schedule's numbers choose an actor for each step; after it the first goes on to its end, then the other.
        """
        futures = [actor.begin(use) for actor, use in zip(self.actors, (first, second), strict=True)]
        for actor in self.actors:
            self._arrives(actor)
        told = ""
        for chosen in itertools.chain(schedule, itertools.repeat(0)):
            if all(actor.ended for actor in self.actors):
                break
            ready = [index for index in (0, 1) if self.actors[index].waiting]
            if not ready:  # each waits for the other, until the database ends one of them
                told += "!"
                with self._changed:
                    assert self._changed.wait_for(self._anybody, _LONG_SECONDS), "a deadlock that nobody ends"
                continue
            who = chosen if chosen in ready else ready[0]
            other = self.actors[1 - who]
            self.actors[who].step()
            told += str(who) if self._arrives(self.actors[who]) else f"({who})"
            if self.actors[who].ended and not other.ended:
                assert self._arrives(other), "it waits for somebody who has gone"
        return [future.exception(_LONG_SECONDS) or future.result() for future in futures], told

    def hold(self, after: int | None) -> Iterator[int]:
        """A schedule: the first stands still after so many steps, or before its commit; the second does all it can."""
        first = self.actors[0]
        while not first.committing if after is None else first.steps < after:
            yield 0
        yield from itertools.repeat(1)

    def _anybody(self) -> bool:
        return any(actor.waiting or actor.ended for actor in self.actors)

    def _arrives(self, actor: Actor) -> bool:
        """Wait until an actor stands before its next step or has ended; False if it waits for a lock."""

        def there() -> bool:
            return actor.waiting or actor.ended

        with self._changed:
            if self._changed.wait_for(there, _SOON_SECONDS):
                return True
        for _ in range(10_000):
            if self.look.execute("select pg_blocking_pids(%s) <> '{}'", [actor.pid]).fetchone() == (True,):
                return bool(there())
            with self._changed:
                if self._changed.wait_for(there, _SOON_SECONDS):
                    return True
        raise AssertionError("a statement neither ends nor waits for a lock")
