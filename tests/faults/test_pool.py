"""A pool's host: two versions take turns on one place, and nothing is lost, doubled or left over, whoever dies.

Each echo engine journals what it was asked, so that what was asked again is known line by line.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from e2e.live import chat
from faults import house_pool, pool_ends, pool_life
from faults.house import House
from faults.house_pool import POOL, HousePool
from faults.load import Load, check
from faults.pool_life import HOST, STEPS, decisions

from penstock.service.pools import pools

pytestmark = pytest.mark.timeout(300)
MODELS = ("left", "right")


@pytest.fixture(scope="module")
def house(build: Callable[..., House], journal: Path) -> House:
    """One host with one place for two versions."""
    journal.touch()
    house = build(
        gpus=0,
        pool=HousePool(dict.fromkeys(MODELS, pool_life.arguments(journal)), pool_life.TERMS),
        wait=False,
        **pool_life.SETTINGS,
    )
    house.wait_until_answering()
    return house


@pytest.fixture(autouse=True)
def unbroken(house: House) -> Iterator[None]:
    """Whatever died, the database and the blobs are as they must be, and each version serves again."""
    yield
    check(house)


@pytest.mark.slow
def test_each_version_has_its_turn_and_a_switch_in_the_middle_of_a_batch_loses_and_doubles_nothing(
    house: House, journal: Path
) -> None:
    left = Load.submit(house, "middle-left", 300, model="left")
    pool_life.awake(house, "left")
    house.until(lambda: len(left.asked(journal)) > 20, "left is at work")
    house.run(pools.pin, POOL, "right@v1")
    right = Load.submit(house, "middle-right", 20, model="right")
    right.has_each_answer_once(house)
    assert house.client.sdk.batches.retrieve(left.id).status == "in_progress"
    house.run(pools.unpin, POOL, "right@v1")
    left.has_each_answer_once(house)
    assert not left.asked_again(journal)
    assert [(leaves, comes, state) for leaves, comes, state, _ in decisions(house)] == [
        (None, "left", "done"),
        ("left", "right", "done"),
        ("right", "left", "done"),
    ]


def test_what_is_on_a_host_that_is_gone_and_more_than_its_places_are_seen(house: House) -> None:
    Load.submit(house, "seen", 1, model="left").has_each_answer_once(house)
    pool_life.awake(house, "left")
    assert pool_ends.rows_that_must_not_be(house) == []
    planted = "insert into pool_residents (host, queue, state) values (%s, 'right', 'awake')"
    dead, host = uuid4(), house.holder(HOST)
    house.sql("insert into workers (id, kind, state, host, pid) values (%s, 'pool', 'gone', 'elsewhere', 1)", dead)
    for on in (dead, host):
        house.sql("delete from pool_residents where queue = 'right'")
        house.sql(planted, on)
        (wrong,) = pool_ends.rows_that_must_not_be(house)
        assert wrong.startswith("something is on" if on == dead else "a host has more awake")
    house.sql("delete from pool_residents where queue = 'right'")


def test_a_host_that_is_told_to_end_leaves_no_process_and_says_that_nothing_is_awake(house: House) -> None:
    Load.submit(house, "told-to-end", 1, model="left").has_each_answer_once(house)
    pool_life.awake(house, "left")
    before, host = house_pool.every_process(house, HOST), house.holder(HOST)
    assert len(before) >= 4
    house.terminate(HOST)
    assert house.wait(HOST, 60) == 0
    pool_life.gone(before, 0.0)
    assert house.rows("select queue from pool_residents where host = %s", host) == []
    assert house.ask("select state from workers where id = %s", host) == "gone"
    house.start(HOST)


def loads(house: House, name: str, lines: int = 20) -> list[Load]:
    """A little work for each version."""
    return [Load.submit(house, f"{name}-{model}", lines, model=model) for model in MODELS]


def start_anew(house: House, point: str) -> None:
    """The host, with a failpoint."""
    house.kill(HOST)
    house.start(HOST, failpoints=point)


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_host_that_is_killed_in_any_step_takes_all_with_it_and_the_next_one_serves(house: House, step: str) -> None:
    start_anew(house, pool_life.passing(step, "kill"))
    given = loads(house, f"host-{step}")
    assert house.wait(HOST, 120) == -signal.SIGKILL
    pool_life.gone(house_pool.every_process(house, HOST))
    house.start(HOST)
    for load in given:
        load.has_each_answer_once(house, 120)


@pytest.mark.slow
def test_a_line_that_kills_its_engine_before_its_first_token_does_not_keep_its_version_from_coming(
    house: House,
) -> None:
    start_anew(house, pool_life.passing("probing", "stop"))
    Load.submit(house, "before-poison", 5, model="left").has_each_answer_once(house, 120)
    deaths, failed = "select value from counts where name = 'engine_death'", "pool_start_failed"
    before, failed_before = house.ask(deaths) or 0, house.ask("select value from counts where name = %s", failed)
    poison = house.client.submit([chat("poison", "poison [[die]]", "right"), chat("other", "hello", "right")])
    pool_life.stands_still(house)
    house.until(lambda: (house.ask(deaths) or 0) > before, "the line has killed its engine", 60)
    house.cont(HOST)
    ended = house.client.ended(poison.id, 180)
    assert [line["custom_id"] for line in house.client.file(ended.output_file_id)] == ["other"]
    assert [line["error"]["code"] for line in house.client.file(ended.error_file_id)] == ["engine_crash"]
    assert house.ask("select value from counts where name = %s", failed) == failed_before
    assert house.ask("select count(*) from pool_versions where unfit_reason is not null") == 0


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kill", [house_pool.kill_members, house_pool.kill_engines], ids=["member", "engine"])
def test_members_and_engines_that_are_killed_in_any_step_cost_no_line(
    house: House, step: str, kill: Callable[[House, str], int]
) -> None:
    start_anew(house, pool_life.passing(step, "stop"))
    given = loads(house, f"{kill.__name__.partition('_')[2]}-{step}")
    pool_life.stands_still(house)
    kill(house, HOST)
    house.cont(HOST)
    for load in given:
        load.has_each_answer_once(house, 120)
    house.until(lambda: list(pool_life.standing(house).values()).count("awake") == 1, "one is awake")
    assert house.ask("select count(*) from pool_versions where unfit_reason is not null") == 0
