"""Migrations: bring a database to the newest revision; safe to run from several processes at once."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from penstock.store.engine import sync_engine


def _scripts() -> Path:
    """Find the revisions: inside the package where it was installed from a wheel, else beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parents[1] / "migrations"


def upgrade(database_url: str) -> None:
    """Bring the database to the newest revision. A second caller waits for the first and finds nothing to do."""
    config = Config()
    config.set_main_option("script_location", str(_scripts()))
    engine = sync_engine(database_url, connections=1)
    with engine.begin() as connection:
        # Serialises concurrent migrations; held by this transaction, so a pooler in transaction mode is fine.
        connection.execute(text("select pg_advisory_xact_lock(7365636)"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()
