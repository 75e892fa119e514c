"""A test's own database: a copy of the migrated template, or one that a test before it gave back and that was emptied.

A copy costs a fifth of a second of a core and makes 600 files; emptying one costs some milliseconds. One is given back
only as it was copied: with the template's tables, triggers and functions, without settings of its own, with nobody
connected to it, and not grown. Every other is dropped.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, LiteralString, cast

import psycopg
from psycopg import sql

from penstock.store.migrate import upgrade

TEMPLATE: Final = "penstock_template"

# What a test may have changed of a database beside its rows. A table that was truncated or rewritten has another file.
_SHAPE: Final = """
    select (select array[count(*), sum(relfilenode::bigint), sum(relnatts), sum(relchecks)]::numeric[]
            from pg_class where relnamespace = 'public'::regnamespace),
           (select array[count(*), sum(hashtext(tgname::text || tgenabled::text))]::numeric[] from pg_trigger),
           (select array[count(*), sum(hashtext(prosrc))]::numeric[]
            from pg_proc where pronamespace = 'public'::regnamespace),
           (select array[count(*), sum(hashtext(conname::text || convalidated::text))]::numeric[] from pg_constraint),
           (select count(*) from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase
            where d.datname = current_database()),
           (select count(*) from pg_stat_activity
            where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid())
"""
# Of the tables that were ever written to: others need not be opened.
_WRITTEN: Final = """
    select relname from pg_class
    where relkind = 'r' and relnamespace = 'public'::regnamespace and pg_relation_size(oid) > 0
"""
_SIZE: Final = "select pg_database_size(current_database())"
_ALLOWED_GROWTH: Final = 8_000_000
"""Bytes. More dead rows than this would be read by each test after it."""


class Databases:
    """The databases of one server's tests."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._numbers = itertools.count(1)
        self._empty: list[str] = []
        self._administer(f"create database {TEMPLATE}")
        upgrade(self._url(TEMPLATE))
        self._administer(f"alter database {TEMPLATE} reset all")  # no copy has what is set at a database
        with psycopg.connect(self._url(TEMPLATE), autocommit=True) as connection:
            tables = connection.execute("select tablename from pg_tables where schemaname = 'public'")
            sequences = connection.execute("select sequencename, start_value from pg_sequences")
            self._restart = [
                sql.SQL("select setval({}, {}, false)").format(sql.Literal(name), sql.Literal(first))
                for name, first in sequences
            ]
            self._kept = [name for (name,) in tables.fetchall() if _rows(connection, name)]
            self._shape = self._shape_of(connection)
            [(self._size,)] = connection.execute(_SIZE).fetchall()

    def _url(self, name: str) -> str:
        """The URL of a database of this server."""
        return self._server.replace("/postgres?", f"/{name}?")

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """A migrated, empty database; gives its URL."""
        name = self._empty.pop() if self._empty else self._copy()
        yield self._url(name)
        if self._is_empty_again(name):
            self._empty.append(name)
        else:
            self._drop(name)

    @contextmanager
    def without_tables(self) -> Iterator[str]:
        """A database that no migration has seen; gives its URL."""
        name = f"test_{next(self._numbers)}"
        self._administer(f"create database {name}")
        yield self._url(name)
        self._drop(name)

    def _drop(self, name: str) -> None:
        """Drop it under whoever is connected to it."""
        self._administer(f"drop database {name} with (force)")

    def _copy(self) -> str:
        name = f"test_{next(self._numbers)}"
        # As files: by way of the log it takes three times the processor time.
        self._administer(f"create database {name} template {TEMPLATE} strategy file_copy")
        return name

    def _is_empty_again(self, name: str) -> bool:
        with psycopg.connect(self._url(name), autocommit=True) as connection:
            if self._shape_of(connection) != self._shape:
                return False
            # No triggers: neither what keeps moves legal nor what notes them.
            connection.execute("set session_replication_role = replica")
            written = [name for (name,) in connection.execute(_WRITTEN) if name not in self._kept]
            wipe = [sql.SQL("delete from {}").format(sql.Identifier(name)) for name in written]
            connection.execute(sql.SQL("; ").join([*wipe, *self._restart]))
            [(size,)] = connection.execute(_SIZE).fetchall()
            return bool(size - self._size < _ALLOWED_GROWTH)

    def _shape_of(self, connection: psycopg.Connection[Any]) -> tuple[Any, ...]:
        return (*connection.execute(_SHAPE).fetchall(), *(_rows(connection, name) for name in self._kept))

    def _administer(self, statement: str) -> None:
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(cast(LiteralString, statement))


def _rows(connection: psycopg.Connection[Any], table: str) -> list[tuple[Any, ...]]:
    statement = sql.SQL("select t::text from {} t order by 1").format(sql.Identifier(table))
    return connection.execute(statement).fetchall()
