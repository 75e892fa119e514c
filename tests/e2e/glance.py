"""Glances at a database, many times a second: one connection for all, and a new one where that has broken."""

from __future__ import annotations

import threading
from typing import Any

import psycopg


class Glance:
    """One database, as a test looks at it beside the platform."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None

    def rows(self, query: str, *values: Any) -> list[Any]:
        """The rows of a query, or none of a statement that has none; raises psycopg.Error as a new connection would."""
        with self._lock:
            known = self._connection
            try:
                return self._ask(query, values)
            except psycopg.OperationalError:
                self._connection = None
                if known is None:
                    raise
                return self._ask(query, values)  # the server was restarted since the last glance

    def _ask(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        if self._connection is None:
            self._connection = psycopg.connect(self._url, autocommit=True)
        found = self._connection.execute(query, values)  # type: ignore[arg-type]
        return found.fetchall() if found.description else []

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
