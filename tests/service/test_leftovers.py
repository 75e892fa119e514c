"""Leftovers: what nobody needs any more goes, nothing else does; twice and at once is the same as once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from service.broom import TWELVE, blobs, counted, ended, insert, named, once, written
from service.desk import Desk
from store.two import held, until_done_or_blocked
from store.world import World

from penstock.domain.api_errors import Conflict, LeaseLost, TooSlow
from penstock.domain.webhook import EVENT_TYPES
from penstock.domain.work.retry import Retry
from penstock.formats import output
from penstock.service.admin import sweep
from penstock.service.core.transaction import Transaction
from penstock.service.intake import upload
from penstock.service.intake.retry import RetryRequest, retry
from penstock.service.lifecycle import work
from penstock.service.planning import validate
from penstock.service.results import assemble
from penstock.service.webhooks import endpoints
from penstock.settings import Settings
from penstock.store import sweep as rows
from penstock.store.batches import files

# Files.


def expire_all(world: World) -> None:
    world.sql("update files set expires_at = clock_timestamp()")


def test_an_expired_file_goes_with_its_blob(desk: Desk, world: World, settings: Settings) -> None:
    batch = ended(desk)
    assert once(desk, pieces_seconds=3_600) == {}
    expire_all(world)
    assert once(desk, pieces_seconds=3_600) == {"expired_files": 2, "doomed_blobs": 4}, "each with its index"
    assert world.rows("select * from files") == []
    assert counted(world) == {"file_swept": 2, "blob_swept": 4}
    assert world.find(batch).output_file is not None, "the batch says that there was one"


def test_an_expired_file_stays_while_a_validating_batch_reads_it(desk: Desk, world: World) -> None:
    batch = desk.batch(TWELVE)
    expire_all(world)
    assert once(desk) == {}
    found, lease = world.claim_batch(batch, "validate")
    validate.validate(world.db, desk.blobs, found, lease, world.settings)
    assert once(desk) == {"expired_files": 1, "doomed_blobs": 2}, "with its index"


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
    assert len(blobs(settings)) == 4  # the input file and the output file, each with its index
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
    now = world.settings.model_copy(update={"pieces_seconds": 0, "batches_seconds": 1e-6})
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
        unread = written(desk)
        world.db.run(insert(unread))
        world.sql("update tenants set file_retention_days = 1")
        world.sql("update files set created_at = now() - interval '2 days' where blob_key = :key", key=unread)
        world.sql("update intents set created_at = clock_timestamp() - interval '2 days'")
        world.sql("update leases set closed_at = clock_timestamp() - interval '2 days' where closed_at is not null")
        world.sql("""
            insert into trail (id, batch, becomes, at) overriding system value
            select min(id) - 1, 'gone', 'validating', now() - interval '40 days' from trail""")
        world.sql("""
            insert into usage_calls select 'acme', 'tiny', now() - interval '1500 days' + count(*) * interval '1 hour',
                   1, 1, 0, 1, 0, 0, 0, 1, 0 from usage_calls""")
        world.sql("""
            insert into audit (id, at, tenant, actor, action, target) overriding system value
            select coalesce(min(id), 0) - 1, now() - interval '400 days', 'acme', 'cli', 'batch.cancelled', 'gone'
            from audit""")
        world.sql("""
            insert into uploads (id, tenant, purpose, filename, bytes, mime_type, expires_at)
            select 'upload_' || count(*), 'acme', 'batch', 'a', 1, 'text/plain', now() - interval '1 hour'
            from uploads""")
        world.sql("""
            insert into gone (id, tenant, created_at, gone_at)
            select 'file_' || count(*), 'acme', now(), now() - interval '2 days' from gone""")
        world.sql("""
            insert into samples (step, model, lane, at)
            select step, '', '', now() - interval '40 days' - count * interval '1 minute'
            from (values (10), (60)) as steps (step), (select count(*) from samples) as had""")
        world.sql("""
            insert into incidents (id, at, name, times) overriding system value
            select coalesce(min(id), 0) - 1, now() - interval '40 days', 'lease_reaped', 1 from incidents""")
        world.sql("""
            with key as (
                insert into api_keys (id, tenant, name, hash, tail)
                select 'key_of_' || count(*), 'acme', 'old', sha256(count(*)::text::bytea), 'tail' from api_keys
                returning id, hash)
            insert into sessions (hash, key, seen_at) select hash, id, now() - interval '2 days' from key""")
        world.sql("""
            insert into unheard_creates (made, tenant, api_key, fingerprint, asked_at)
            select 'batch_' || count(*), 'acme', 'key_1', decode(repeat('00', 32), 'hex'), now() - interval '1 hour'
            from unheard_creates""")
        world.sql(
            """
            with made as (
                insert into evals (id, tenant, name, scorers)
                values ('eval_of_' || :batch, 'acme', 'old', '[]') returning id)
            insert into eval_runs (id, tenant, eval, name, batch, owns_batch, lane, completion_window, state, ended_at)
            select 'evalrun_of_' || :batch, 'acme', id, 'old', 'gone', false, 'flex', '24h', 'cancelled',
                   now() - interval '2 days'
            from made""",
            batch=batch,
        )
        world.sql(
            """
            insert into events (id, tenant, batch, type, created_at)
            values ('evt_of_' || :batch, 'acme', :batch, 'old', now() - interval '40 days')""",
            batch=batch,
        )
        world.sql(
            """
            with made as (
                insert into webhook_endpoints
                    (id, tenant, name, url, receiver, event_types, secret, secret_hint, disabled_as, updated_at)
                values ('we_of_' || :batch, 'acme', '', 'https://a', 'a:443', '{batch.failed}', 'fernet:', '',
                        'deleted', now() - interval '40 days'))
            insert into deliveries (id, tenant, endpoint, receiver, event, type, object, happened_at, test, state,
                                    next_at, ended_at)
            values ('dlv_of_' || :batch, 'acme', 'we_of_' || :batch, 'a:443', 'evt_test', 'batch.failed', 'batch_test',
                    now(), true, 'failed', null, now() - interval '40 days')""",
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
    done = once(desk, batches_seconds=1e-6)
    assert {name: min(count, 2) for name, count in done.items()} == done
    assert set(done) == {duty.__name__ for duty in sweep.DUTIES} | {"doomed_blobs"}
    while once(desk, batches_seconds=1e-6):
        pass
    assert blobs(world.settings) == named(world) == set()
    assert world.one("select count(*) from batches") == 0


def test_a_batch_that_ended_long_ago_goes_whole_and_what_it_used_stays_counted(desk: Desk, world: World) -> None:
    ended(desk)
    used = world.one("select sum(completed) from segments")
    assert once(desk, batches_seconds=3_600, pieces_seconds=3_600) == {}
    done = once(desk, batches_seconds=1e-6, pieces_seconds=3_600)
    assert (done["old_batches"], set(done)) == (1, {"old_batches", "doomed_blobs"})
    for table in ("batches", "slices", "segments", "leases", "events"):
        assert world.one(f"select count(*) from {table}") == 0
    assert world.one("select count(*) from files") == 1, "its input is its tenant's own"
    assert world.one("select sum(requests) from usage_lines") == used > 0
    assert blobs(world.settings) == named(world)


def test_a_retry_of_long_ago_goes_with_its_merged_results(desk: Desk, world: World) -> None:
    parent = desk.validate(TWELVE)
    desk.answer(parent, failed=frozenset({1, 2}))
    desk.assemble(parent)
    asked = RetryRequest(api_key=None), None, world.settings
    child = world.db.run(retry, "acme", "batch", parent, Retry(failed=True), *asked).id
    found, lease = world.claim_batch(child, "validate")
    validate.validate(world.db, desk.blobs, found, lease, world.settings)
    desk.answer(child, failed=frozenset({1}))
    desk.assemble(child)
    merged = world.find(child).merged_output_file, world.find(child).merged_error_file
    assert None not in merged
    assert world.one("select count(*) from files where id = any(:merged)", merged=list(merged)) == 2
    while once(desk, batches_seconds=1e-6):
        pass
    assert world.one("select count(*) from batches") == 0
    assert world.one("select count(*) from files") == 2, "the inputs, until they expire"
    assert blobs(world.settings) == named(world)


def test_what_was_used_is_known_for_its_time(world: World) -> None:
    for age in (1_100, 1_090, 0):
        for table in ("usage_lines", "usage_calls"):
            world.sql(
                f"""
                insert into {table}
                values ('acme', 'tiny', now() - :age * interval '1 day', 1, 1, 0, 1, 0, 0, 0, 1, 0)""",
                age=age,
            )
    assert world.db.run(sweep.old_usage, world.settings) == 1
    assert world.db.run(sweep.old_usage, world.settings) == 0
    assert world.one("select count(*) from usage_lines") == world.one("select count(*) from usage_calls") == 2
    world.sql("delete from usage_lines")  # no line of which is there


def test_events_and_trail_that_are_not_old_stay(desk: Desk, world: World) -> None:
    ended(desk)
    before = world.one("select count(*) from trail")
    now = world.settings.model_copy(update={"events_seconds": 30, "trail_seconds": 0})
    assert world.db.run(sweep.old_trail, now) == 0, "a day of the trail stays whatever the setting says"
    assert world.db.run(sweep.old_events, now) == 0
    assert world.db.run(sweep.old_deliveries, now) == 0
    assert world.one("select count(*) from trail") == before


def test_an_event_stays_as_long_as_something_of_it_is_owed_and_endpoints_go_with_their_last_delivery(
    world: World,
) -> None:
    everything = world.settings.model_copy(update={"events_seconds": 0})
    lasting = world.db.run(endpoints.create, "acme", "", "https://a.example", EVENT_TYPES, None, world.settings)
    batch = world.validating()
    world.db.run(endpoints.attach, "acme", batch, endpoints.wish("https://b.example", None, None, world.settings))
    world.cancel(batch)
    for duty in (sweep.old_deliveries, sweep.old_events):
        assert world.db.run(duty, everything) == 0
    world.db.run(endpoints.change, "acme", lasting.id, enabled=False)
    assert (world.db.run(sweep.old_deliveries, everything), world.db.run(sweep.old_events, everything)) == (1, 0)
    world.sql("update deliveries set state = 'failed', next_at = null, ended_at = clock_timestamp()")
    assert (world.db.run(sweep.old_deliveries, everything), world.db.run(sweep.old_events, everything)) == (1, 1)
    assert [row.id for row in world.rows("select id from webhook_endpoints")] == [lasting.id]
    world.db.run(endpoints.delete, "acme", lasting.id)
    world.db.run(sweep.old_deliveries, everything)
    assert world.rows("select id from webhook_endpoints") == []
    world.sql("insert into events select 'evt_1', tenant, id, 'batch.cancelled' from batches")  # as the invariants want


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
    kept = world.rows("select blob_key, index_key from files")
    assert blobs(settings) == {key for row in kept for key in row if key is not None}
    assert world.rows("select * from intents") == []
    for line in (desk.result(twice, "output") or b"").splitlines():
        assert output.parse(line)["custom_id"]


def test_a_file_that_is_in_use_is_not_deleted_by_its_tenant(desk: Desk, world: World) -> None:
    desk.batch(TWELVE)
    with pytest.raises(Conflict):
        world.db.run(upload._delete, "acme", world.one("select id from files"))
