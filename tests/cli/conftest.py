"""The commands run in this process, against a live API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from api.live import KEY, http, serving
from typer.testing import CliRunner, Result

from penstock.cli.main import app
from penstock.service.core.transaction import Database
from penstock.settings import Settings
from penstock.store.engine import sync_engine

Penstock = Callable[..., Result]


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """The settings of the API that the commands talk to."""
    return Settings(
        database_url=database_url, redis_url=redis_url, blob_url=f"file://{tmp_path}/blobs", bootstrap_key=KEY
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[httpx.Client]:
    """A plain client of a live API."""
    with serving(settings) as url, http(url) as one:
        yield one


@pytest.fixture
def penstock(client: httpx.Client, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Penstock:
    """Run one command as a user would, with the environment that leads to the live API."""
    monkeypatch.setenv("PENSTOCK_URL", str(client.base_url))
    monkeypatch.setenv("PENSTOCK_API_KEY", KEY)
    monkeypatch.setenv("PENSTOCK_DATABASE_URL", settings.database_url)
    monkeypatch.delenv("PENSTOCK_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """The database for a test's own hands."""
    database = Database(sync_engine(database_url, connections=2), lambda hints: None)
    yield database
    database.close()
