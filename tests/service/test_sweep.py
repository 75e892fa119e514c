"""Sweeps: what nobody needs goes, nothing else does; twice and at once is the same as once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from service.desk import Desk, request
from store.two import held, until_done_or_blocked
from store.world import World, records

from penstock.domain.errors import Conflict, LeaseLost, TooSlow
from penstock.formats import output
from penstock.service import assemble, sweep, upload, validate, work
from penstock.service.ids import blob_key, fresh
from penstock.service.transaction import Transaction
from penstock.settings import Settings
from penstock.store import counts, files
from penstock.store import sweep as rows

TWELVE = b"\n".join(request(f"q{n}") for n in range(1, 13))


def once(desk: Desk, **settings: Any) -> dict[str, int]:
    """One turn of every duty, with what is old being old at once."""
    old = {"unfinished_blob_seconds": 0, "pieces_seconds": 0} | settings
    return sweep.once(desk.world.db, desk.blobs, desk.world.settings.model_copy(update=old))


def blobs(settings: Settings) -> set[str]:
    """The keys of everything in the blob store, and of temporary files."""
    root = Path(settings.blob_url.removeprefix("file://"))
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def named(world: World) -> set[str]:
    """The keys of all blobs that a row names, intents included."""
    return {row.key for row in world.rows("""
        select blob_key as key from files union all select blob_key from segments where blob_key is not null
        union all select blob_key from intents""")}  # fmt: skip


def written(desk: Desk, size: int = 10) -> str:
    """A blob with its intent, as a writer leaves it that died before it published."""
    key = blob_key("acme", "files")
    desk.world.db.run(work.intend, key)
    desk.blobs.put(key, bytes(size))
    return key


def insert(key: str) -> Callable[[Transaction], bool]:
    """Publish a blob as a file."""
    return lambda tx: files.insert(
        tx.conn, "acme", id=fresh("file-"), purpose="batch", filename="f", bytes=10, sha256=bytes(32), blob_key=key,
        ttl=None,
    )  # fmt: skip


def counted(world: World) -> dict[str, int]:
    """What was swept, by kind."""
    return {name: count for name, count in world.db.run(lambda tx: counts.read(tx.conn)).items() if count}


def ended(desk: Desk) -> str:
    """A batch that was validated, answered and assembled."""
    batch = desk.validate(TWELVE)
    desk.answer(batch)
    desk.assemble(batch)
    return batch


# Blobs.


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
    return claim, key, lambda tx: work.flush(tx, claim, 1, records(claim, claim.first_line), key)


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
    assert named(world) == {key} | {row.blob_key for row in world.rows("select blob_key from files")}


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
    assert given_up == [1]
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


# Files.


def expire_all(world: World) -> None:
    world.sql("update files set expires_at = clock_timestamp()")


def test_an_expired_file_goes_with_its_blob(desk: Desk, world: World, settings: Settings) -> None:
    batch = ended(desk)
    assert once(desk, pieces_seconds=3_600) == {}
    expire_all(world)
    assert once(desk, pieces_seconds=3_600) == {"expired_files": 2, "doomed_blobs": 2}
    assert world.rows("select * from files") == []
    assert counted(world) == {"file_swept": 2, "blob_swept": 2}
    assert world.find(batch).output_file is not None, "the batch says that there was one"


def test_an_expired_file_stays_while_a_validating_batch_reads_it(desk: Desk, world: World) -> None:
    batch = desk.batch(TWELVE)
    expire_all(world)
    assert once(desk) == {}
    found, lease = world.claim_batch(batch, "validate")
    validate.validate(world.db, desk.blobs, found, lease, world.settings)
    assert once(desk) == {"expired_files": 1, "doomed_blobs": 1}


def test_a_batch_that_is_created_as_its_file_expires_finds_the_file_or_is_refused(desk: Desk, world: World) -> None:
    desk.batch(TWELVE)
    file = world.one("select id from files")
    world.sql("delete from slices")
    world.cancel(world.one("select id from batches"))
    with held(world, lambda tx: files.share(tx.conn, "acme", file)):
        expire_all_later = lambda tx: rows.delete_expired_files(tx.conn, limit=10)  # noqa: E731
        assert world.db.run(expire_all_later) == 0
    expire_all(world)
    with held(world, expire_all_later) as (pool, _):
        sharing = pool.submit(world.db.run, lambda tx: files.share(tx.conn, "acme", file))
        assert until_done_or_blocked(world, sharing) is False, "an expired file is not even waited for"
        assert sharing.result(30) is None


def test_a_deleted_file_is_doomed_at_once(desk: Desk, world: World, settings: Settings) -> None:
    key = written(desk)
    world.db.run(insert(key))
    file = world.one("select id from files")
    world.db.run(upload._delete, "acme", file)  # and the API dies before it deletes the blob
    assert once(desk, unfinished_blob_seconds=86_400) == {"doomed_blobs": 1}
    assert blobs(settings) == set()
    with pytest.raises(TooSlow):
        world.db.run(insert(key))


# What ended batches leave.


def test_pieces_of_an_ended_batch_go_and_its_files_stay(desk: Desk, world: World, settings: Settings) -> None:
    batch = ended(desk)
    before = world.find(batch)
    assert once(desk, pieces_seconds=3_600) == {}
    assert once(desk) == {"pieces": 3, "doomed_blobs": 4}
    assert world.rows("select * from segments") == []
    assert blobs(settings) == named(world)
    assert len(blobs(settings)) == 2  # the input file and the output file
    assert desk.result(batch, "output")
    assert world.find(batch) == before
    assert counted(world) == {"segment_swept": 3, "blob_swept": 4}
    assert once(desk) == {}


def test_pieces_of_an_open_batch_stay(desk: Desk, world: World) -> None:
    batch = desk.validate(TWELVE)
    desk.answer(batch, slices=2)
    assert once(desk) == {}
    desk.answer(batch)
    desk.assemble(batch)
    assert len((desk.result(batch, "output") or b"").splitlines()) == 12


def test_an_inline_job_keeps_its_results(desk: Desk, world: World) -> None:
    job = world.job(3)
    world.finish(world.claimed(world.worker()))
    assert world.find(job).ended
    assert once(desk) == {}
    world.sql("update leases set closed_at = clock_timestamp() - interval '2 days' where closed_at is not null")
    assert once(desk) == {"old_leases": 1}
    assert world.one("select count(*) from segments") == 1
    assert world.rows("select * from leftovers") == []


def test_a_batch_whose_assembly_was_given_up_keeps_its_answers_for_a_month(desk: Desk, world: World) -> None:
    batch = desk.validate(TWELVE)
    desk.answer(batch)
    _, lease = world.claim_batch(batch, "assemble")
    world.db.run(work.give_up, batch, lease)
    assert once(desk) == {}
    world.sql("update leftovers set since = since - interval '30 days'")
    assert once(desk)["pieces"] == 3


def test_a_large_batch_goes_in_bounded_steps(desk: Desk, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ended(desk)
    monkeypatch.setattr(sweep, "MOST", 2)
    assert once(desk) == {"pieces": 2, "doomed_blobs": 2}
    assert world.one("select count(*) from leftovers") == 1
    assert once(desk) == {"pieces": 1, "doomed_blobs": 2}
    assert world.one("select count(*) from leftovers") == 0


@pytest.mark.parametrize("duty", sweep.DUTIES, ids=lambda duty: duty.__name__)
def test_a_duty_that_two_keepers_do_at_once_is_done_once(
    world: World, grow_old: Callable[[], None], duty: Callable[[Transaction, Settings], int]
) -> None:
    grow_old()
    now = world.settings.model_copy(update={"pieces_seconds": 0})
    first: list[int] = []
    with held(world, lambda tx: first.append(duty(tx, now))) as (pool, one):
        second = pool.submit(world.db.run, duty, now)
        until_done_or_blocked(world, second)
        one.go_on()
        assert first[0] > 0
        assert second.result(30) == 0
    assert world.db.run(duty, now) == 0


@pytest.fixture
def grow_old(desk: Desk, world: World) -> Iterator[Callable[[], None]]:
    """Makes something for every duty; what the invariants would not bear goes at the end."""

    def grow() -> None:
        batch = ended(desk)
        written(desk)
        expire_all(world)
        world.sql("update intents set created_at = clock_timestamp() - interval '2 days'")
        world.sql("update leases set closed_at = clock_timestamp() - interval '2 days' where closed_at is not null")
        world.sql("""
            insert into trail (id, batch, becomes, at) overriding system value
            select min(id) - 1, 'gone', 'validating', now() - interval '40 days' from trail""")
        world.sql(
            """
            insert into events (id, tenant, batch, type, created_at)
            values ('evt_of_' || :batch, 'acme', :batch, 'old', now() - interval '40 days')""",
            batch=batch,
        )

    yield grow
    world.sql("delete from trail where batch = 'gone'")
    world.sql("delete from events where type = 'old'")


def test_every_duty_is_bounded(
    desk: Desk, world: World, grow_old: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        grow_old()
    monkeypatch.setattr(sweep, "MOST", 2)
    done = once(desk)
    assert {name: min(count, 2) for name, count in done.items()} == done
    assert set(done) == {duty.__name__ for duty in sweep.DUTIES} | {"doomed_blobs"}
    while once(desk):
        pass
    assert blobs(world.settings) == named(world) == set()


def test_events_and_trail_that_are_not_old_stay(desk: Desk, world: World) -> None:
    ended(desk)
    before = world.one("select count(*) from trail")
    now = world.settings.model_copy(update={"events_seconds": 30, "trail_seconds": 0})
    assert world.db.run(sweep.old_trail, now) == 0, "a day of the trail stays whatever the setting says"
    assert world.db.run(sweep.old_events, now) == 0
    assert world.one("select count(*) from trail") == before


# A whole life.


def test_after_a_life_with_failures_a_sweep_leaves_files_only(desk: Desk, world: World, settings: Settings) -> None:
    ended(desk)
    cancelled = desk.validate(TWELVE)
    desk.answer(cancelled, slices=1)
    world.cancel(cancelled)
    desk.assemble(cancelled)
    refused = desk.batch(TWELVE)
    found, lease = world.claim_batch(refused, "validate")
    world.cancel(refused)
    with pytest.raises(LeaseLost):
        validate.validate(world.db, desk.blobs, found, lease, world.settings)
    twice = desk.validate(TWELVE)
    desk.answer(twice)
    found, lease = world.claim_batch(twice, "assemble")
    world.db.run(work.release, lease)
    with pytest.raises(LeaseLost):  # its output is written, and somebody else assembles it by now
        assemble.assemble(world.db, desk.blobs, found, lease, settings)
    desk.assemble(twice)
    while once(desk):
        pass
    assert blobs(settings) == {row.blob_key for row in world.rows("select blob_key from files")}
    assert world.rows("select * from intents") == []
    for line in (desk.result(twice, "output") or b"").splitlines():
        assert output.parse(line)["custom_id"]


def test_a_file_that_is_in_use_is_not_deleted_by_its_tenant(desk: Desk, world: World) -> None:
    desk.batch(TWELVE)
    with pytest.raises(Conflict):
        world.db.run(upload._delete, "acme", world.one("select id from files"))
