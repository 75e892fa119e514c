"""Fixtures: a small world for pools, whose database is one for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from store.world import World

from penstock.settings import Settings


@pytest.fixture(scope="module")
def whole(shared_database_url: str) -> Iterator[World]:
    """The world, for all tests of a file."""
    one = World(shared_database_url, Settings(database_url=shared_database_url, ready_per_worker=4))
    yield one
    one.close()


@pytest.fixture
def world(whole: World) -> Iterator[World]:
    """The same, begun again; its invariants are checked after each test."""
    whole.clear()
    yield whole
    whole.check()
