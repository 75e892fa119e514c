"""Transactions: one connection, and the hints that are said only once it has committed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Concatenate, Final, ParamSpec, Self, TypeVar

import sqlalchemy.exc
from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool

from penstock.domain.accounts.audit import PLATFORM, Actor
from penstock.domain.api_errors import Unavailable
from penstock.domain.work.hint import Hint
from penstock.failpoint import failpoint

P = ParamSpec("P")
R = TypeVar("R")


# idle_in_transaction_session_timeout and transaction_timeout: this process was stopped in the middle of one.
_ENDED_BY_SERVER: Final = ("25P03", "25P04")


class Transaction:
    """What a use case works in. Its caller commits; hints wait until then."""

    def __init__(self, conn: Connection, actor: Actor = PLATFORM) -> None:
        self.conn = conn
        self.actor = actor
        """Who asks for it, for the audit."""
        self.hints: list[Hint] = []

    def hint(self, hint: Hint) -> None:
        """Say this after the commit; the same hint is said once."""
        if hint not in self.hints:
            self.hints.append(hint)


@contextmanager
def _away_is_unavailable() -> Iterator[None]:
    try:
        yield
    except (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError, sqlalchemy.exc.TimeoutError) as error:
        raise Unavailable("The database is away; try again shortly.") from error
    except sqlalchemy.exc.InternalError as error:
        if getattr(error.orig, "sqlstate", None) not in _ENDED_BY_SERVER:
            raise
        raise Unavailable("The database ended a transaction that stood still; try again.") from error


class _Reach:
    """Whether the database is asked: by a process that ends only until it was away once."""

    def __init__(self) -> None:
        self.ends = self._was_away = False

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Raises Unavailable, at once if nothing is to be waited for any more."""
        if self.ends and self._was_away:
            raise Unavailable("The database is away, and the process ends.")
        try:
            with _away_is_unavailable():
                yield
        except Unavailable:
            self._was_away = True
            raise
        self._was_away = False


class Database:
    """Runs use cases of one actor, each in a transaction, from threads. `say` publishes hints and never raises."""

    def __init__(self, engine: Engine, say: Callable[[Sequence[Hint]], None], actor: Actor = PLATFORM) -> None:
        self.engine = engine
        self._say = say
        self._actor = actor
        self._reach = _Reach()

    def run(self, use_case: Callable[Concatenate[Transaction, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run one use case; raise Unavailable if the database is away (its commit may still have happened)."""
        with self._reach.asked(), self.engine.begin() as conn:
            transaction = Transaction(conn, self._actor)
            result = use_case(transaction, *args, **kwargs)
        if transaction.hints:
            failpoint("hint.committed")
            self._say(transaction.hints)
        return result

    def hurry(self) -> None:
        """The process ends: from now on a database that was away is not asked again, since each call waits for it."""
        self._reach.ends = True

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()


class AsyncDatabase:
    """The same from an event loop: use cases run on the async driver, hints are said off the loop by `say`."""

    def __init__(self, engine: AsyncEngine, say: Callable[[Sequence[Hint]], None]) -> None:
        self.engine = engine
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._say = say
        self._actor = PLATFORM
        self._reach = _Reach()

    def by(self, actor: Actor) -> Self:
        """The same database for what somebody asks for."""
        bound = copy.copy(self)
        bound._actor = actor
        return bound

    async def run(self, use_case: Callable[Concatenate[Transaction, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run one use case; raise Unavailable if the database is away (its commit may still have happened)."""
        with self._reach.asked():
            async with self.engine.begin() as conn:
                result, hints = await conn.run_sync(_called(self._actor, use_case, *args, **kwargs))
        if hints:
            failpoint("hint.committed")
            self._say(hints)
        return result

    async def autocommit(
        self, use_case: Callable[Concatenate[Transaction, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """The same without begin and commit, for a use case that only reads, or is a single statement; it says nothing.

        Each statement sees what was committed before it, as in any of our transactions.
        """
        with self._reach.asked():
            async with self._autocommit.connect() as conn:
                result, hints = await conn.run_sync(_called(self._actor, use_case, *args, **kwargs))
        assert not hints, "who says something runs in a transaction"
        return result

    @property
    def connections_in_use(self) -> int:
        """Connections of its pool that somebody has at the moment."""
        pool = self.engine.pool
        assert isinstance(pool, QueuePool), "as the engine is made"
        return pool.checkedout()

    def hurry(self) -> None:
        """The process ends: from now on a database that was away is not asked again, since each call waits for it."""
        self._reach.ends = True

    async def close(self) -> None:
        """Close the connections."""
        await self.engine.dispose()


def _called(
    actor: Actor, use_case: Callable[Concatenate[Transaction, P], R], *args: P.args, **kwargs: P.kwargs
) -> Callable[[Connection], tuple[R, list[Hint]]]:
    def call(conn: Connection) -> tuple[R, list[Hint]]:
        transaction = Transaction(conn, actor)
        return use_case(transaction, *args, **kwargs), transaction.hints

    return call
