"""Migrations: bring a database to the newest revision; safe to run from several processes at once."""

from __future__ import annotations

from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from penstock.store.engine import sync_engine

log = structlog.get_logger()

# Half a lease: what a stopped holder has locked is free before its lease can be reaped.
_LIMIT = text(
    """
    do $$ begin
        execute format('alter database %I set idle_in_transaction_session_timeout = ''10s''', current_database());
    end $$"""
)


def _scripts() -> Path:
    """Find the revisions: inside the package where it was installed from a wheel, else beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parents[1] / "migrations"


def upgrade(database_url: str) -> None:
    """Bring the database to the newest revision. A second caller waits for the first and finds nothing to do."""
    config = Config()
    config.set_main_option("script_location", str(_scripts()))
    engine = sync_engine(database_url, connections=1, patient=True)
    with engine.begin() as connection:
        # Serialises concurrent migrations; held by this transaction, so a pooler in transaction mode is fine.
        connection.execute(text("select pg_advisory_xact_lock(7365636)"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        limit_transactions(connection)
    engine.dispose()


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
