"""One failure at a chosen call: a transaction or a blob call fails before it happened, or after, its answer being lost.

The faults are the drivers' own: the connection is cut under SQLAlchemy, and obstore's functions raise what they raise.
So what the product makes of them is tested too.
"""

from __future__ import annotations

import inspect
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError
from sqlalchemy import Connection, Engine, event

FULL = "Generic LocalFileSystem error: No space left on device (os error 28)"
AWAY = "Generic S3 error: error sending request: connection refused"


class Fault:
    """Fails the nth call of all that pass here, `before` it happens or `after`; with 0 it only counts them."""

    def __init__(self) -> None:
        self.set()

    def set(self, at: int = 0, when: str = "before", message: str = AWAY) -> None:
        """Begin to count again."""
        self.at = at
        self.when = when
        self.message = message
        self.calls: list[str] = []

    def due(self, call: str) -> str | None:
        """How this call fails, if it does."""
        self.calls.append(call)
        return self.when if len(self.calls) == self.at else None

    @property
    def struck(self) -> str:
        """The call that failed."""
        return self.calls[self.at - 1] if 0 < self.at <= len(self.calls) else "nothing"


class FailingDatabase:
    """Cuts the connection of one transaction: at its begin, in the middle (before its commit), or after the commit."""

    def __init__(self, engine: Engine, fault: Fault) -> None:
        self._fault = fault
        self._now: dict[int, str] = {}
        event.listen(engine, "begin", self._begin)
        event.listen(engine, "commit", self._commit)

    def _begin(self, conn: Connection) -> None:
        how = self._fault.due("transaction")
        if how == "before":
            _driver(conn).close()
        elif how:
            self._now[id(conn)] = how

    def _commit(self, conn: Connection) -> None:
        how = self._now.pop(id(conn), None)
        if how == "after":
            _driver(conn).commit()
        if how:
            _driver(conn).close()


def _driver(conn: Connection) -> Any:
    found = conn.connection.dbapi_connection
    assert found is not None
    return found


class FailingStore:
    """obstore with one function, or one call of a writer, that fails; stands where the blob store imports obstore."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        return _failing(getattr(obstore, name), name, self._fault, GenericError)


class _Writer:
    """A writer whose calls may fail; they raise a plain OSError, as obstore's do."""

    def __init__(self, writer: Any, fault: Fault) -> None:
        self._writer = writer
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        return _failing(getattr(self._writer, name), f"writer.{name}", self._fault, OSError)


def _failing(call: Any, name: str, fault: Fault, error: type[Exception]) -> Any:
    """The call, or its failure; a coroutine's too."""

    def failing(*args: Any, **kwargs: Any) -> Any:
        how = fault.due(name)
        if how == "before":
            raise error(fault.message)
        made = call(*args, **kwargs)
        if inspect.isawaitable(made):
            return _later(made, error(fault.message) if how else None)
        if how:
            raise error(fault.message)
        return _Writer(made, fault) if name.startswith("open_writer") else made

    return failing


async def _later(made: Any, error: Exception | None) -> Any:
    result = await made
    if error:
        raise error
    return result


def install(monkeypatch: pytest.MonkeyPatch, store: Any) -> None:
    """Let the blob store call this instead of obstore."""
    monkeypatch.setattr("penstock.blobs.store.obstore", store)
