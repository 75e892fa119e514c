"""Fixtures: a world that begins again in one database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from store.world import World

from penstock.settings import Settings


@pytest.fixture
def database_url(shared_database_url: str) -> str:
    """One database for a whole file: `world` begins again in it."""
    return shared_database_url


@pytest.fixture
def world(database_url: str, settings: Settings) -> Iterator[World]:
    one = World(database_url, settings)
    one.clear()
    yield one
    one.check()
    one.close()
