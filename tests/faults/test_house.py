"""The house: each process ends, stops, goes on and comes back by its name, and nothing of it is left at the end."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from e2e.live import chat, said, until
from faults.house import House

from penstock_worker.engine.process.guard import look_up


@pytest.mark.slow
def test_processes_end_and_come_back_by_name_and_none_is_left(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with House(database_url, redis_url, tmp_path, keepers=2, gpus=2) as house:
        assert list(house.residents) == ["api-1", "keeper-1", "keeper-2", "io-1", "gpu-1", "gpu-2"]
        first, engine = house.holder("gpu-1"), house.engine("gpu-1")
        house.stop("gpu-2")
        until(lambda: psutil.Process(house.pid("gpu-2")).status() == psutil.STATUS_STOPPED, "gpu-2 is stopped", 10)
        house.cont("gpu-2")
        assert house.kill_engine("gpu-1")
        until(lambda: house.engine("gpu-1")[1:] not in ((), engine[1:]), "gpu-1 has a new engine", 30)
        house.kill("gpu-1")
        house.kill("gpu-1")  # it is gone already
        assert not house.lives("gpu-1")
        house.start("gpu-1")
        house.restart("io-1")
        house.wait_until_ready()
        assert house.holder("gpu-1") not in (None, first)
        other = house.client_of("other")
        batch = other.ended(other.submit([chat("one", "hello")]).id)
        assert said(other.file(batch.output_file_id)[0]) == "hello"
        pids = [house.pid(name) for name in house.residents] + [p.pid for p in house.engine("gpu-1")]
        assert all(look_up(pid) for pid in pids)
    assert not [pid for pid in pids if look_up(pid)]


def test_what_the_processes_said_last_stands_in_a_failure(database_url: str, redis_url: str, tmp_path: Path) -> None:
    with House(database_url, redis_url, tmp_path, gpus=0, ios=0, wait=False) as house:
        house.until(lambda: house.ask("select count(*) from workers where kind = 'keeper'"), "a keeper", 30)
        told = house.tell()
    assert "--- keeper-1 runs" in told
    assert "keeper_started" in told
