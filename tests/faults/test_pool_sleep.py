"""A pool whose engines can sleep: none of what they get wrong costs a line, and each fault ends in a cold start.

The echo engine plays vLLM's sleep and its defects (`engine/echo/played_sleep.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.live import chat
from faults import house_pool, pool_life
from faults.house import House
from faults.house_pool import POOL, HousePool
from faults.load import Load, check
from faults.pool_life import HOST

from penstock.service.pools import pools
from penstock_worker.engine.process.guard import kill

_DRAINED = "select count(*) from workers where kind = 'gpu' and state = 'drained'"
pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]


@pytest.fixture
def house(
    request: pytest.FixtureRequest, database_url: str, redis_url: str, tmp_path: Path, journal: Path
) -> Iterator[House]:
    """One host whose first version sleeps as the test says."""
    journal.touch()
    sleeps = pool_life.arguments(journal, "--enable-sleep-mode")
    fault = [f"--sleep-fault={request.param}"] if request.param else []
    members = {"left": [*sleeps, *fault], "right": sleeps}
    with House(
        database_url, redis_url, tmp_path, gpus=0, pool=HousePool(members, pool_life.TERMS), wait=False,
        **pool_life.SETTINGS, pool_probe_seconds="2",
    ) as house:  # fmt: skip
        house.wait_until_answering()
        yield house
        check(house)


def there_and_back(house: House, name: str, journal: Path) -> None:
    """Left, then right in the middle of left's batch, then left again: each line once."""
    left = Load.submit(house, f"{name}-left", 300, model="left")
    house.until(lambda: len(left.asked(journal)) > 20, "left is at work", 120)
    house.run(pools.pin, POOL, "right@v1")
    Load.submit(house, f"{name}-right", 20, model="right").has_each_answer_once(house, 120)
    house.run(pools.unpin, POOL, "right@v1")
    left.has_each_answer_once(house, 120)
    assert not left.asked_again(journal)


def engines(house: House) -> set[int]:
    """The workers that there have been so far, by pid."""
    return {pid for (pid,) in house.rows("select pid from workers where kind = 'gpu'")}


@pytest.mark.parametrize("house", [None], indirect=True)
def test_who_leaves_falls_asleep_and_comes_back_without_a_start(house: House, journal: Path) -> None:
    there_and_back(house, "well", journal)
    assert len(engines(house)) == 2
    methods = house.rows("select method, state from pool_decisions order by id")
    assert methods == [("restart", "done"), ("sleep", "done"), ("sleep", "done")]
    assert sorted(pool_life.standing(house).values()) == ["asleep", "awake"]


@pytest.mark.parametrize("house", ["aborts"], indirect=True)
def test_an_engine_that_aborts_what_is_in_it_is_empty_before_it_is_told_to_sleep(house: House, journal: Path) -> None:
    there_and_back(house, "aborts", journal)
    assert house.ask("select count(*) from counts where name = 'pool_sleep_failed'") == 0


@pytest.mark.parametrize(
    ("house", "counted"),
    [("dies", "pool_sleep_failed"), ("keeps", "pool_sleep_failed"), ("hangs", "pool_start_failed")],
    indirect=["house"],
)
def test_an_engine_that_sleeps_badly_is_ended_and_started_cold(
    house: House, journal: Path, counted: str, request: pytest.FixtureRequest
) -> None:
    there_and_back(house, request.node.callspec.params["house"], journal)
    assert house.ask("select value from counts where name = %s", counted) >= 1
    assert len(engines(house)) == 3
    assert house.ask("select count(*) from pool_versions where unfit_reason is not null") == 0


@pytest.mark.parametrize("house", [None], indirect=True)
def test_a_host_that_was_taken_for_gone_before_anything_ended_lets_its_version_work_on(
    house: House, journal: Path
) -> None:
    house.kill(HOST)
    house.start(HOST, failpoints=pool_life.passing("leaving", "stop"))
    left = Load.submit(house, "gone-left", 300, model="left")
    pool_life.awake(house, "left")
    house.run(pools.pin, POOL, "right@v1")
    pool_life.stands_still(house)
    house.run(pools.unpin, POOL, "right@v1")
    house.sql(
        "update pool_decisions set state = 'failed', ended_at = clock_timestamp(), error = 'Its host is gone.'"
        " where ended_at is null"
    )
    house.cont(HOST)
    left.has_each_answer_once(house, 120)
    assert len(engines(house)) == 1
    assert "look_failed" not in house.residents[HOST].log.read_text()


@pytest.mark.parametrize("house", [None], indirect=True)
def test_an_engine_that_died_in_its_sleep_and_came_back_awake_while_nobody_looked_is_ended(
    house: House, journal: Path
) -> None:
    Load.submit(house, "asleep-left", 20, model="left").has_each_answer_once(house)
    (left,) = house_pool.engines(house, HOST)
    house.run(pools.pin, POOL, "right@v1")
    pool_life.awake(house, "right")
    house.stop(HOST)
    assert kill(left)
    house.until(lambda: len(set(house_pool.engines(house, HOST)) - {left}) == 2, "it is back")
    house.until(lambda: house.ask(_DRAINED) == 1, "its worker is as it was")
    house.cont(HOST)
    house.until(lambda: house_pool.count_engines(house)[HOST] == 1, "it is ended")
    house.until(lambda: pool_life.standing(house) == {"left": "stopped", "right": "awake"}, "that is known")


@pytest.mark.parametrize("house", [None], indirect=True)
def test_a_member_that_dies_while_it_drains_is_ended_and_what_it_held_is_asked_again(
    house: House, journal: Path
) -> None:
    held = house.client.submit([chat("held", "held while it drains [[sleep 4000]]", "left")])
    house.until(lambda: "held while it drains" in journal.read_text(), "left is asked", 120)
    house.run(pools.pin, POOL, "right@v1")
    house.until(lambda: pool_life.standing(house).get("left") == "leaving", "left is told to drain")
    assert house_pool.kill_members(house, HOST) == 1
    pool_life.awake(house, "right")
    house.run(pools.unpin, POOL, "right@v1")
    assert house.client.ended(held.id, 120).status == "completed"
    assert [state for _, _, state, _ in pool_life.decisions(house)] == ["done"] * 3
    assert "look_failed" not in house.residents[HOST].log.read_text()
