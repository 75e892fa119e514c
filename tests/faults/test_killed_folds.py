"""Folds whose io worker, member's worker or Postgres is killed in any step: no line is lost, no wave is cut twice."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from faults.house import House
from faults.load import check
from faults.one_of_each import arm, revive
from faults.panel_load import PanelLoad
from faults.servers import PostgresServer

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

STEPS = ("fold.folded", "fold.recording", "fold.recorded", "fold.asking", "fold.asked")
SETTINGS = {
    "lease_seconds": "3",
    "beat_seconds": "1",
    "worker_gone_seconds": "4",
    "hint_again_seconds": "1",
    "slice_lines": "30",
}


@pytest.fixture(scope="module")
def house(build: Callable[..., House], journal: Path) -> House:
    """One process of each kind."""
    return build(engine_arguments=[f"--journal={journal}", "--latency-ms=20"], **SETTINGS)


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[PostgresServer]:
    """One that may be killed."""
    with tempfile.TemporaryDirectory(prefix="ps-") as folder, PostgresServer(Path(folder)) as server:
        yield server


@pytest.fixture(scope="module")
def other_house(
    postgres_server: PostgresServer, valkey_url: str, tmp_path_factory: pytest.TempPathFactory, journal: Path
) -> Iterator[House]:
    """The same on that server."""
    arguments = [f"--journal={journal}", "--latency-ms=20"]
    folder = tmp_path_factory.mktemp("house")
    with House(postgres_server.url, valkey_url, folder, engine_arguments=arguments, **SETTINGS) as house:
        yield house


def stands_still(house: House, name: str) -> None:
    """Wait until it is stopped at its failpoint."""
    house.until(lambda: psutil.Process(house.pid(name)).status() == psutil.STATUS_STOPPED, f"{name} stands still")


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("step", STEPS)
def test_an_io_worker_that_dies_in_a_step_of_a_fold_costs_no_question(
    house: House, journal: Path, step: str, at: int
) -> None:
    revive(house)
    arm(house, "io-1", f"{step}=kill@{at}")
    load = PanelLoad.submit(house, f"io-{step}-{at}", 100)
    assert house.wait("io-1", 60) == -signal.SIGKILL
    revive(house)
    load.is_as_its_rules_say(house)
    load.asked_once(journal)
    assert "reaped" in load.folds(house) or step == "fold.asked"  # whoever dies after its commit has left nothing
    check(house)


def test_three_io_workers_that_die_one_after_the_other_in_different_waves_fail_nothing(
    house: House, journal: Path
) -> None:
    revive(house)
    arm(house, "io-1", "fold.recorded=kill")
    load = PanelLoad.submit(house, "io-often", 20)
    for step in ("fold.asking", "fold.asked", "fold.folded"):
        assert house.wait("io-1", 60) == -signal.SIGKILL
        arm(house, "io-1", f"{step}=kill")
    assert house.wait("io-1", 60) == -signal.SIGKILL
    revive(house)
    load.is_as_its_rules_say(house)
    load.asked_once(journal)
    check(house)


@pytest.mark.parametrize("step", ["slice.claimed", "slice.asking", "segment.written", "slice.settling"])
def test_a_members_worker_that_dies_in_the_second_wave_is_replaced_and_the_wave_goes_on(
    house: House, step: str
) -> None:
    revive(house)
    arm(house, "io-1", "fold.asked=stop")
    load = PanelLoad.submit(house, f"gpu-{step}", 60)
    stands_still(house, "io-1")
    house.kill("gpu-1")
    house.start("gpu-1", failpoints=f"{step}=kill")
    assert house.wait("gpu-1", 60) == -signal.SIGKILL
    house.cont("io-1")
    revive(house)
    load.is_as_its_rules_say(house)
    check(house)


@pytest.mark.parametrize("step", STEPS)
def test_a_fold_goes_on_when_postgres_is_back(other_house: House, postgres_server: PostgresServer, step: str) -> None:
    house = other_house
    house.kill("io-1")
    house.start("io-1", failpoints=f"{step}=stop@2")
    load = PanelLoad.submit(house, f"pg-{step}", 60)
    stands_still(house, "io-1")
    postgres_server.end()
    house.cont("io-1")
    postgres_server.start()
    house.wait_until_answering()
    load.is_as_its_rules_say(house, 120)
    assert house.lives("io-1")
    check(house)
