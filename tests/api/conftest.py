"""Fixtures: the API under test, clients of two tenants, and the database for a test's own hands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from api.live import KEY, http, serving

from penstock.domain.work.hint import Hint
from penstock.service.admin import keys, models
from penstock.service.core.transaction import Database
from penstock.settings import Settings
from penstock.store.engine import sync_engine


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """The settings of the API under test; small limits, so that tests can reach them."""
    return Settings(
        database_url=database_url,
        redis_url=redis_url,
        blob_url=f"file://{tmp_path}/blobs",
        bootstrap_key=KEY,
        metrics_open=True,
        max_file_bytes=8 * 1024 * 1024,
        max_json_bytes=1024 * 1024,
        max_job_requests=200,
        max_inline_bytes=16 * 1024,
        max_wait_seconds=20,
    )


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    """The address of a live API."""
    with serving(settings) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    """A plain HTTP client with a valid key."""
    with http(url) as one:
        yield one


@pytest.fixture
def stranger(url: str, db: Database) -> Iterator[httpx.Client]:
    """A client with the key of another tenant."""
    _, key = db.run(keys.create, "stranger", "test")
    with http(url, key) as one:
        yield one


@pytest.fixture
def said() -> list[Hint]:
    """Hints that `db` said."""
    return []


@pytest.fixture
def db(database_url: str, said: list[Hint]) -> Iterator[Database]:
    """The database for a test's own hands: what workers would do."""
    database = Database(sync_engine(database_url, connections=4), said.extend)
    yield database
    database.close()


@pytest.fixture
def model(db: Database) -> str:
    """A model that is known and has no worker."""
    db.run(models.add, "tiny")
    return "tiny"
