"""Sweeping blobs: what nobody published is deleted, what is published never, and nothing is forgotten before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from service.broom import TWELVE, blobs, counted, insert, named, once, written
from service.desk import Desk
from store import as_holder
from store.two import held, until_done_or_blocked
from store.world import World, records

from penstock.domain.api_errors import LeaseLost, TooSlow
from penstock.service.admin import sweep
from penstock.service.core.ids import blob_key
from penstock.service.core.transaction import Transaction
from penstock.service.lifecycle import work
from penstock.service.planning import validate
from penstock.settings import Settings
from penstock.store import sweep as rows


def test_a_blob_that_nobody_published_is_doomed_and_then_deleted(desk: Desk, world: World, settings: Settings) -> None:
    key = written(desk)
    assert once(desk, unfinished_blob_seconds=60) == {}
    assert once(desk) == {"unfinished": 1, "doomed_blobs": 1}
    assert key not in blobs(settings)
    assert world.rows("select * from intents") == []
    assert counted(world) == {"blob_swept": 1}
    assert once(desk) == {}


def test_a_late_writer_is_refused_and_what_it_still_wrote_goes_too(
    desk: Desk, world: World, settings: Settings
) -> None:
    key = blob_key("acme", "files")
    world.db.run(work.intend, key)
    world.sql("update intents set created_at = clock_timestamp() - interval '2 days'")
    assert once(desk, unfinished_blob_seconds=86_400) == {"unfinished": 1}  # its blob is deleted an hour later
    desk.blobs.put(key, b"late")
    with pytest.raises(TooSlow):
        world.db.run(insert(key))
    assert named(world) == {key}
    world.sql("update intents set doomed_at = clock_timestamp()")
    assert once(desk, unfinished_blob_seconds=86_400) == {"doomed_blobs": 1}
    assert blobs(settings) == set()


def test_the_temporary_file_of_a_cut_write_goes_with_its_key(desk: Desk, world: World, settings: Settings) -> None:
    key = blob_key("acme", "files")
    world.db.run(work.intend, key)
    cut = Path(settings.blob_url.removeprefix("file://"), f"{key}#1")
    cut.parent.mkdir(parents=True)
    cut.write_bytes(b"half")
    once(desk)
    assert blobs(settings) == set()


def doom(tx: Transaction) -> int:
    return sweep.unfinished(tx, Settings(unfinished_blob_seconds=0))


def test_a_blob_that_is_being_published_is_passed_over(desk: Desk, world: World) -> None:
    key = written(desk)
    with held(world, insert(key)):
        assert world.db.run(doom) == 0
    assert world.one("select blob_key from files") == key
    assert once(desk) == {}
    assert desk.blobs.read(key)


def test_a_publisher_waits_for_the_sweep_that_dooms_its_blob_and_is_refused(desk: Desk, world: World) -> None:
    key = written(desk)
    with held(world, doom) as (pool, dooming):
        publishing = pool.submit(world.db.run, insert(key))
        assert until_done_or_blocked(world, publishing)
        dooming.go_on()
        assert isinstance(publishing.exception(30), TooSlow)
    assert world.rows("select * from files") == []
    assert named(world) == {key}


def flush(desk: Desk) -> tuple[Any, str, Callable[[Transaction], None]]:
    """A claim, and the flush of a blob that is written and intended."""
    world = desk.world
    desk.validate(TWELVE)
    claim = world.claimed(world.worker())
    key = written(desk)
    return claim, key, lambda tx: as_holder.flush(tx, claim, 1, records(claim, claim.first_line), key)


def test_a_flush_whose_blob_is_doomed_records_nothing(desk: Desk, world: World) -> None:
    claim, key, flushes = flush(desk)
    with held(world, doom) as (pool, dooming):
        flushing = pool.submit(world.db.run, flushes)
        assert until_done_or_blocked(world, flushing)
        dooming.go_on()
        assert isinstance(flushing.exception(30), LeaseLost)
    assert world.rows("select * from segments") == []
    assert world.one("select sum(completed) from slices") == 0
    assert key in named(world)
    world.flush(claim, 2, claim.first_line)  # the lease is as good as before


def test_a_flush_that_is_open_keeps_its_blob(desk: Desk, world: World) -> None:
    _, key, flushes = flush(desk)
    with held(world, flushes):
        assert world.db.run(doom) == 0
    assert world.one("select blob_key from segments") == key
    assert once(desk) == {}
    assert desk.blobs.read(key)


def test_a_flush_that_is_repeated_after_a_lost_answer_is_recorded_once(desk: Desk, world: World) -> None:
    _, key, flushes = flush(desk)
    world.db.run(flushes)
    world.db.run(flushes)
    with held(world, flushes) as (pool, first):
        again = pool.submit(world.db.run, flushes)
        until_done_or_blocked(world, again)
        first.go_on()
        assert again.exception(30) is None
    assert world.one("select sum(completed) from slices") == 1
    assert named(world) == {key} | {one for row in world.rows("select blob_key, index_key from files") for one in row}


def test_the_same_first_flush_on_two_connections_publishes_once(desk: Desk, world: World) -> None:
    _, key, flushes = flush(desk)
    with held(world, flushes) as (pool, first):
        again = pool.submit(world.db.run, flushes)
        assert until_done_or_blocked(world, again)
        first.go_on()
        assert again.exception(30) is None
    assert world.one("select sum(completed) from slices") == 1
    assert [row.blob_key for row in world.rows("select blob_key from segments")] == [key]


def test_a_plan_whose_blob_was_given_up_is_not_published(desk: Desk, world: World) -> None:
    batch = desk.batch(TWELVE)
    found, lease = world.claim_batch(batch, "validate")
    begin, given_up = validate.begin, []

    def late(tx: Transaction, *rest: Any) -> None:
        given_up.append(doom(tx))
        begin(tx, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validate, "begin", late)
        with pytest.raises(LeaseLost):
            validate.validate(world.db, desk.blobs, found, lease, world.settings)
    assert given_up == [2], "the plan, and the index of the input"
    assert (world.find(batch).state, world.slices(batch)) == ("validating", [])
    world.db.run(work.release, lease)
    found, lease = world.claim_batch(batch, "validate")
    validate.validate(world.db, desk.blobs, found, lease, world.settings)
    assert desk.plan(batch)


def test_an_undeletable_blob_does_not_keep_the_others_from_their_turn(
    desk: Desk, world: World, settings: Settings
) -> None:
    keys = [written(desk) for _ in range(5)]
    stuck = Path(settings.blob_url.removeprefix("file://"), keys[0])
    stuck.unlink()
    (stuck / "in the way").mkdir(parents=True)
    assert once(desk) == {"unfinished": 5, "doomed_blobs": 4}
    assert named(world) == {keys[0]}
    assert once(desk) == {}, "it is not tried again at once"
    (stuck / "in the way").rmdir()
    stuck.rmdir()
    world.sql("update intents set doomed_at = clock_timestamp()")
    assert once(desk) == {"doomed_blobs": 1}
    assert named(world) == set()


def test_a_blob_store_that_is_away_leaves_everything_for_later(desk: Desk, world: World, settings: Settings) -> None:
    keys = {written(desk) for _ in range(3)}
    root = Path(settings.blob_url.removeprefix("file://"))
    away = root.rename(root.with_name("away"))
    root.write_bytes(b"no folder")
    assert once(desk) == {"unfinished": 3}
    assert named(world) == keys
    root.unlink()
    away.rename(root)
    world.sql("update intents set doomed_at = clock_timestamp()")
    assert once(desk) == {"doomed_blobs": 3}
    assert blobs(settings) == set()


def test_two_keepers_take_different_blobs(desk: Desk, world: World) -> None:
    keys = {written(desk) for _ in range(4)}
    world.db.run(doom)

    def take(limit: int) -> Callable[[Transaction], list[str]]:
        return lambda tx: rows.due(tx.conn, again=sweep._AGAIN, limit=limit)

    taken: list[str] = []
    with held(world, lambda tx: taken.extend(take(2)(tx))):
        other = world.db.run(take(9))
    assert len(taken) == len(other) == 2
    assert {*taken, *other} == keys


# A keeper that dies.


@pytest.mark.parametrize("step", ["sweep.taken", "sweep.deleted"])
def test_a_keeper_that_is_killed_between_two_steps_leaves_the_rest_to_the_next(
    desk: Desk, world: World, settings: Settings, step: str
) -> None:
    keys = {written(desk) for _ in range(3)}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")} | {
        "PENSTOCK_DATABASE_URL": settings.database_url,
        "PENSTOCK_REDIS_URL": "redis://127.0.0.1:1/0",
        "PENSTOCK_BLOB_URL": settings.blob_url,
        "PENSTOCK_SWEEP_SECONDS": "0.05",
        "PENSTOCK_UNFINISHED_BLOB_SECONDS": "0",
        "PENSTOCK_FAILPOINTS": f"{step}=kill",
    }
    command = [sys.executable, "-m", "penstock.cli.main", "keeper"]
    killed = subprocess.run(command, env=environment, capture_output=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stdout
    assert named(world) == keys, "a blob that may still be there has its intent"
    world.sql("update intents set doomed_at = clock_timestamp()")  # a minute later
    assert once(desk) == {"doomed_blobs": 3}
    assert (blobs(settings), named(world)) == (set(), set())
