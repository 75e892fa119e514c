"""Fixtures: a world over a fresh database; its invariants are checked after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from store.world import World

from penstock.settings import Settings


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Small ready lists, so that tests can fill them."""
    return Settings(database_url=database_url, ready_per_worker=4)


@pytest.fixture
def world(database_url: str, settings: Settings) -> Iterator[World]:
    """A tenant, a known model, no gpu worker."""
    one = World(database_url, settings)
    yield one
    one.check()
    one.close()
