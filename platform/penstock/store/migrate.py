"""Migrations: bring a database to the newest revision; safe to run from several processes at once."""

from __future__ import annotations

import structlog
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from penstock.store import revision
from penstock.store.engine import sync_engine

log = structlog.get_logger()

# Half a lease: what a stopped holder has locked is free before its lease can be reaped.
_LIMIT = text(
    """
    do $$ begin
        execute format('alter database %I set idle_in_transaction_session_timeout = ''10s''', current_database());
        -- The database tells new connections alone; behind a pooler this one stays, and serves whoever comes next.
        set idle_in_transaction_session_timeout = '10s';
    end $$"""
)


def upgrade(database_url: str) -> None:
    """Bring the database to the newest revision. A second caller waits for the first and finds nothing to do."""
    config = Config()
    config.set_main_option("script_location", str(revision.scripts()))
    engine = sync_engine(database_url, connections=1, patient=True)
    with engine.begin() as connection:
        # Serialises concurrent migrations; held by this transaction, so a pooler in transaction mode is fine.
        connection.execute(text("select pg_advisory_xact_lock(7365636)"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        revision.note_oldest(connection, _oldest(config))
        limit_transactions(connection)
    engine.dispose()


def _oldest(config: Config) -> str:
    """The latest word of any migration on whose code may run beside it."""
    known = ScriptDirectory.from_config(config).walk_revisions()
    return max(str(getattr(one.module, "OLDEST", one.revision)) for one in known)


def limit_transactions(connection: Connection) -> None:
    """Let the database end a transaction whose client stopped in its middle, for it holds locks that others wait for.

    A property of the database, since a pooler in transaction mode passes no session's settings on. Whoever migrates
    usually owns the database; where not, its owner has to set it, and a warning says so.
    """
    try:
        with connection.begin_nested():
            connection.execute(_LIMIT)
    except ProgrammingError as error:
        log.warning("transactions_unlimited", setting="idle_in_transaction_session_timeout", error=str(error.orig))
