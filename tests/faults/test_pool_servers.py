"""Postgres that is killed while a pool's host stands in any step of a switch: the host goes on where it was."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import pool_life
from faults.house import House
from faults.house_pool import HousePool
from faults.load import Load, check
from faults.pool_life import HOST, STEPS
from faults.servers import PostgresServer

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[PostgresServer]:
    """One that may be killed."""
    with tempfile.TemporaryDirectory(prefix="ps-") as folder, PostgresServer(Path(folder)) as server:
        yield server


@pytest.fixture(scope="module")
def house(
    postgres_server: PostgresServer, valkey_url: str, tmp_path_factory: pytest.TempPathFactory, journal: Path
) -> Iterator[House]:
    """One host with one place for two versions."""
    members = dict.fromkeys(("left", "right"), pool_life.arguments(journal))
    folder = tmp_path_factory.mktemp("house")
    with House(
        postgres_server.url, valkey_url, folder, gpus=0, pool=HousePool(members, pool_life.TERMS), wait=False,
        **pool_life.SETTINGS,
    ) as house:  # fmt: skip
        house.wait_until_answering()
        yield house


@pytest.mark.parametrize("step", STEPS)
def test_a_host_goes_on_with_its_switch_when_postgres_is_back(
    house: House, postgres_server: PostgresServer, step: str
) -> None:
    house.kill(HOST)
    house.start(HOST, failpoints=pool_life.passing(step, "stop"))
    loads = [Load.submit(house, f"pg-{step}-{model}", 20, model=model) for model in ("left", "right")]
    pool_life.stands_still(house)
    postgres_server.end()
    house.cont(HOST)
    postgres_server.start()
    house.wait_until_answering()
    for load in loads:
        load.has_each_answer_once(house, 180)
    assert house.lives(HOST)
    check(house)
