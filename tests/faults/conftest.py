"""Houses that several tests share: a fault that is over leaves them as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from databases import Databases
from faults.house import House

from penstock.store.migrate import upgrade


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all engines of the house were asked."""
    return tmp_path_factory.mktemp("journal") / "asked"


@pytest.fixture(scope="module")
def build(
    request: pytest.FixtureRequest,
    databases: Databases,
    valkey_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., House]]:
    """Build a house on a database of its own that stands for the whole module."""
    name = f"house_{request.module.__name__.rpartition('.')[2]}"
    with ExitStack() as stack:
        stack.enter_context(redis.Redis.from_url(valkey_url)).flushall()

        def built(*, wait: bool = True, **settings: Any) -> House:
            url = stack.enter_context(databases.fresh())
            upgrade(url)  # a copy of a template has its tables, but not the limits that are set at a database
            house = stack.enter_context(House(url, valkey_url, tmp_path_factory.mktemp(name), wait=False, **settings))
            if wait:
                house.wait_until_ready(150)  # ten processes on two busy cores take a while
            return house

        yield built
