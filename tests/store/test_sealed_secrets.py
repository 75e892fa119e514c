"""Webhook secrets from before: a database of the revision before comes to the newest one, and takes none in clear."""

from __future__ import annotations

import psycopg
import pytest
from alembic import command
from alembic.config import Config

from penstock.store import migrate
from penstock.store.engine import sync_engine
from penstock.store.revision import scripts

BEFORE = "0015"


def to(url: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(scripts()))
    engine = sync_engine(url, connections=1)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def insert(connection: psycopg.Connection, id: str, secret: str, more: str = "") -> None:
    columns, values = ("", "") if not more else (", secret_hint", f", '{more}'")
    connection.execute(
        f"insert into webhook_endpoints (id, tenant, name, url, receiver, event_types, secret{columns})"  # type: ignore[arg-type]
        f" values ('{id}', 'acme', '', 'https://a', 'a:443', '{{batch.failed}}', '{secret}'{values})"
    )


def test_a_secret_from_before_keeps_its_hint_and_no_other_comes_in_clear(empty_database_url: str) -> None:
    to(empty_database_url, BEFORE)
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("insert into tenants (id, name) values ('acme', 'acme')")
        insert(connection, "we_1", "whsec_abcdWXYZ")
    migrate.upgrade(empty_database_url)
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        assert connection.execute("select secret, secret_hint from webhook_endpoints").fetchone() == (
            "whsec_abcdWXYZ",
            "WXYZ",
        )
        connection.execute("update webhook_endpoints set disabled_as = 'by_hand'")
        with pytest.raises(psycopg.errors.CheckViolation):
            insert(connection, "we_2", "whsec_abcdWXYZ", "WXYZ")
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute("update webhook_endpoints set secret = 'whsec_abcdWXYZ'")
