"""Fixtures: the console in front of a live API, and a real browser that lets nothing pass which a page may not do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from api.live import KEY, serving
from console.browser import Browser, running

from penstock.domain.accounts.access import Role
from penstock.service.admin import keys
from penstock.service.core.transaction import Database
from penstock.settings import Settings
from penstock.store.engine import sync_engine


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for a module; each test has its own context in it.

    Not for the session: while its driver is there, a loop runs in this thread, and no other test can have its own.
    """
    with running() as browser:
        yield browser


@pytest.fixture(scope="module")
def settings(shared_database_url: str, valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The settings of the platform behind the console, one for a module."""
    return Settings(
        database_url=shared_database_url,
        redis_url=valkey_url,
        blob_url=f"file://{tmp_path_factory.mktemp('blobs')}",
        bootstrap_key=KEY,
        metrics_open=True,
    )


@pytest.fixture(scope="module")
def url(settings: Settings) -> Iterator[str]:
    """The address of a live API with its console."""
    with serving(settings) as address:
        yield address


@pytest.fixture(scope="module")
def db(shared_database_url: str) -> Iterator[Database]:
    """The database for a test's own hands: what workers would do."""
    database = Database(sync_engine(shared_database_url, connections=4), lambda hints: None)
    yield database
    database.close()


@pytest.fixture(scope="module")
def tenant_key(db: Database, url: str) -> str:
    """A key of a plain tenant."""
    return db.run(keys.create, "team-a", "test")[1]


@pytest.fixture(scope="module")
def viewer_key(db: Database, url: str) -> str:
    """A key of the same tenant that only reads."""
    return db.run(keys.create, "team-a", "viewer", Role.VIEWER)[1]
