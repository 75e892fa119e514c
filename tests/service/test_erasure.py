"""Erasure: no row and no blob is left of a tenant, nothing of another is touched, and a kill at any step loses none."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from service.broom import TWELVE, blobs, ended, named, once, written
from service.desk import Desk
from store import as_holder
from store.two import Held, held, until_done_or_blocked
from store.world import World, records

from penstock.domain.accounts.access import Access, Role
from penstock.domain.accounts.audit import Actor
from penstock.domain.accounts.tokens import Usage
from penstock.domain.api_errors import BadRequest, Conflict, LeaseLost, NotFound, Unauthorized
from penstock.domain.webhook import EVENT_TYPES
from penstock.domain.work.retry import Retry
from penstock.service.admin import keys, limits, tenants
from penstock.service.calls import call_usage
from penstock.service.control import budgets, delete, erasure
from penstock.service.core import audit
from penstock.service.core.transaction import Database
from penstock.service.ensembles import ensembles
from penstock.service.intake.retry import RetryRequest, retry
from penstock.service.lifecycle import work
from penstock.service.webhooks import endpoints
from penstock.settings import Settings


@pytest.fixture
def quick(world: World) -> Settings:
    """Nobody remembers a key, and what is being written is deleted at once."""
    return world.settings.model_copy(update={"key_cache_seconds": -1.0, "erasure_late_seconds": 0.0})


def tables(world: World) -> dict[str, list[str]]:
    """Every row of every table, as text."""
    names = [row.tablename for row in world.rows("select tablename from pg_tables where schemaname = 'public'")]
    return {name: [row[0] for row in world.rows(f"select t::text from {name} t order by 1")] for name in sorted(names)}


def ids(world: World, tenant: str) -> set[str]:
    """All that names something of a tenant: ids, blobs' keys, and its own name."""
    found = {tenant}
    of_batches = {"batches": "id", "trail": "batch", "leftovers": "batch"}
    for table, column in [
        *((name, "id") for name in ("files", "api_keys", "events", "deliveries", "webhook_endpoints")),
        *of_batches.items(),
        ("intents", "blob_key"),
        ("files", "blob_key"),
        ("audit", "target"),
    ]:
        where = ""
        if table in ("trail", "leftovers"):
            where = "where batch in (select id from batches where tenant = :tenant)"
        elif table == "intents":
            where = "where starts_with(blob_key, :tenant || '/')"
        elif table != "trail":
            where = "where tenant = :tenant"
        found |= {row[0] for row in world.rows(f"select {column}::text from {table} {where}", tenant=tenant)}
    found |= {row[0] for row in world.rows("select blob_key from segments where blob_key is not null")}
    return found


def live(desk: Desk, world: World, tenant: str) -> None:
    """Use everything there is: of each table that knows tenants some rows."""
    run = world.db.run
    _, _ = run(keys.create, tenant, "first")
    operator, _ = run(keys.create, tenant, "ops", Role.OPERATOR)
    run(tenants.change, tenant, weight=2.0, retention={"batch": 30, "file": 7})
    run(limits.change, tenant, {"requests_per_minute": 60})
    run(budgets.set_budget, tenant, "250.00")
    run(call_usage.add, {(tenant, "tiny", ""): (3, Usage(7, 0, 5, 0, 0))})
    run(endpoints.create, tenant, "hook", "https://93.184.215.14/x", EVENT_TYPES, None, world.settings)
    world.batch(2, tenant=tenant)
    open_job = world.job(2, tenant=tenant)
    gone = world.job(1, tenant=tenant)
    for job in (open_job, gone):
        world.drain(job)
    run(delete.delete, tenant, "job", gone)
    waiting = world.validating(tenant=tenant)
    world.cancel(waiting)
    world.validating(tenant=tenant)
    world.sql(
        """
        insert into fair_turns (model, lane_rank, tenant, served)
        values ('tiny', 1, :tenant, 5), ('tiny', 1, :tenant || ' small', 5) on conflict do nothing""",
        tenant=tenant,
    )
    world.sql(
        "insert into events (id, tenant, type) values ('evt_b_' || :tenant, :tenant, 'budget.spent')", tenant=tenant
    )
    world.sql(
        """
        insert into delivery_attempts (delivery, number, at, status, milliseconds, answer)
        select id, 1, now(), 500, 3, 'no' from deliveries where tenant = :tenant""",
        tenant=tenant,
    )
    world.sql("update deliveries set attempts = 1 where tenant = :tenant", tenant=tenant)
    world.sql(
        """
        with made as (
            insert into evals (id, tenant, name, scorers) values ('eval_' || :tenant, :tenant, 'e', '[]') returning id),
        ran as (
            insert into eval_runs (id, tenant, eval, name, batch, owns_batch, lane, completion_window)
            select 'evalrun_' || :tenant || n, :tenant, id, '', 'batch_x', false, 'flex', '24h'
            from made, generate_series(1, 2) n returning id, eval)
        insert into eval_comparisons (id, tenant, eval, baseline, candidate)
        select 'evalcmp_' || :tenant, :tenant, min(eval), min(id), max(id) from ran""",
        tenant=tenant,
    )
    part = f"{tenant}/parts/1"
    desk.blobs.put(part, b"part")
    world.sql(
        """
        with made as (
            insert into uploads (id, tenant, purpose, filename, bytes, mime_type, expires_at)
            values ('upload_' || :tenant, :tenant, 'batch', 'x.jsonl', 4, 'text/plain', now() + interval '1 hour')
            returning id)
        insert into upload_parts (id, tenant, upload, bytes, blob_key) select 'part_' || id, :tenant, id, 4, :key
        from made""",
        tenant=tenant,
        key=part,
    )
    world.sql(
        """
        insert into unheard_creates (made, tenant, api_key, fingerprint)
        values ('batch_u_' || :tenant, :tenant, :key, decode(repeat('00', 32), 'hex'))""",
        tenant=tenant,
        key=operator,
    )
    key = f"{tenant}/files/being-written"
    run(work.intend, key)
    desk.blobs.put(key, b"half")
    other = Database(world.db.engine, world.said.extend, Actor(operator, "req_1"))
    other.run(tenants.weigh, "neighbour", 3.0)
    other.run(ensembles.add, {"name": "pair", "kind": "route", "members": [{"model": "tiny"}], "default": "tiny"})
    batch = world.batch(2, tenant=tenant)
    world.sql("update slices set ensemble = (select id from ensembles), member = 'tiny' where batch = :id", id=batch)


@pytest.fixture
def neighbour(world: World) -> str:
    world.tenant("neighbour")
    return "neighbour"


def erase(desk: Desk, settings: Settings, id: str, seconds: float = 30.0) -> None:
    """Do what the keeper does, until it has ended."""
    end = time.monotonic() + seconds
    while desk.world.db.run(erasure.get, id).ended_at is None:
        assert time.monotonic() < end, tables(desk.world)
        erasure.advance(desk.world.db, desk.blobs, id, settings, threading.Event())


def test_no_row_and_no_blob_is_left_and_another_tenant_is_as_it_was(
    desk: Desk, world: World, quick: Settings, neighbour: str
) -> None:
    ended(desk)
    once(desk)
    ended(desk)
    desk.validate(TWELVE)
    for tenant in ("acme", neighbour):
        live(desk, world, tenant)
    of_acme = ids(world, "acme")
    before = tables(world)
    knows = {name for name, rows in before.items() if any("acme" in row for row in rows)}
    assert knows >= {"api_keys", "audit", "batches", "deliveries", "events", "fair_turns", "files", "intents", "slices"}
    assert knows >= {"tenants", "trail", "usage_calls", "usage_lines", "webhook_endpoints"}
    assert knows >= {"uploads", "upload_parts", "unheard_creates", "evals", "eval_runs", "eval_comparisons"}
    of_neighbour = {key for key in blobs(world.settings) if key.startswith("neighbour/")}

    begun = world.db.run(erasure.begin, "acme")
    erase(desk, quick, begun.id)

    after = tables(world)
    left = [(name, row) for name, rows in after.items() for row in rows if any(one in row for one in of_acme)]
    assert left == []
    assert blobs(world.settings) == of_neighbour != set()
    for name, rows in before.items():
        its = [row for row in rows if "neighbour" in row]
        still = [row for row in after[name] if "neighbour" in row]
        if name == "audit":  # what a key of the erased one did to it is there, and not by whom
            by_acme = [row for row in its if any(one in row for one in of_acme)]
            assert [len(by_acme), len(still)] == [1, len(its)]
            its, still = [row for row in its if row not in by_acme], [row for row in still if ",erased," not in row]
        assert still == its, name
    done = world.db.run(erasure.get, begun.id)
    assert done.tenant is None
    assert done.gone["batches"] >= 6
    assert done.gone["bytes"] > len(TWELVE)
    view = world.db.run(ensembles.view, "pair")
    assert (view.ensemble.created_by, view.counts["tiny"].lines) == ("erased", 2), "it stays; its lines are neighbour's"
    [row] = world.db.run(audit.page, action="tenant.erased", limit=10)
    assert (row.tenant, row.target, row.details, row.actor.id) == ("", begun.id, done.gone, "platform")
    assert tables(world)["usage_calls"] != []
    world.db.run(call_usage.add, {("acme", "tiny", ""): (1, Usage())})
    assert not any("acme" in row for row in tables(world)["usage_calls"]), "a call that ended later is not counted"
    assert world.db.run(tenants.create, "acme").weight == 1.0, "the name is free again"


def test_a_closed_tenant_has_no_key_and_takes_nothing(desk: Desk, world: World, quick: Settings) -> None:
    id, key = world.db.run(keys.create, "acme", "first")
    world.db.run(keys.access_of, key)
    late = written(desk)
    first = world.db.run(erasure.begin, "acme")
    assert world.db.run(erasure.begin, "acme").id == first.id, "asked again it is the same"
    assert world.db.run(tenants.get, "acme").erasure == first.id
    with pytest.raises(Unauthorized):
        world.db.run(keys.access_of, key)
    with pytest.raises(Unauthorized):
        world.validating()
    with pytest.raises(Conflict, match="being erased"):
        world.db.run(keys.create, "acme", "another")
    for act in (
        lambda tx: keys.rotate(tx, id),
        lambda tx: tenants.change(tx, "acme", weight=2.0),
        lambda tx: limits.change(tx, "acme", {"files": 5}),
        lambda tx: limits.change(tx, "acme", {"requests_per_minute": 5}, id),
        lambda tx: budgets.set_budget(tx, "acme", "1.00"),
    ):
        with pytest.raises(Conflict, match="being erased"):
            world.db.run(act)
    erase(desk, quick, first.id)
    assert late not in blobs(world.settings)
    with pytest.raises(NotFound):
        world.db.run(erasure.begin, "acme")
    with pytest.raises(NotFound):
        world.db.run(erasure.begin, "nobody")


def test_the_platforms_own_tenant_and_the_askers_are_refused(world: World) -> None:
    world.tenant("default")
    with pytest.raises(BadRequest, match="platform's own"):
        world.db.run(erasure.begin, "default")
    with pytest.raises(BadRequest, match="its own tenant"):
        world.db.run(erasure.begin, "acme", Access("key_1", "acme", Role.OPERATOR))
    assert world.rows("select * from erasures") == []


def test_a_holder_has_its_time_and_what_it_writes_later_is_refused(desk: Desk, world: World, quick: Settings) -> None:
    batch, holder = world.batch(4), world.worker()
    claim = world.claimed(holder)
    id = world.db.run(erasure.begin, "acme").id
    stop = threading.Event()
    erasure.advance(world.db, desk.blobs, id, quick, stop)
    assert world.find(batch).state == "cancelling"
    told = world.db.run(work.beat, holder, [claim.lease], world.settings)
    assert told.closing == {claim.lease: "cancelled"}
    world.flush(claim, 1, claim.first_line)
    erasure.advance(world.db, desk.blobs, id, quick, stop)
    assert world.find(batch).state == "cancelling", "it is still held"
    world.sql("update tenants set closed_at = closed_at - interval '1 hour'")
    erase(desk, quick, id)
    with pytest.raises(LeaseLost):
        world.flush(claim, 2, claim.first_line + 1)
    with pytest.raises(LeaseLost):
        world.db.run(as_holder.settle, claim)
    world.db.run(work.release, claim.lease)
    world.db.run(work.unreadable, claim)
    world.db.run(work.give_back, [(claim, [claim.first_line])])
    assert world.db.run(work.beat, holder, [claim.lease], world.settings).lost == {claim.lease}
    assert not any("acme" in row for rows in tables(world).values() for row in rows)


def test_what_a_late_holder_records_is_waited_for_or_refused_wherever_a_removal_is(
    desk: Desk, world: World, quick: Settings
) -> None:
    for after in (None, *range(1, 12)):
        tenant = f"late-{after}"
        batch = world.batch(2, tenant=tenant)
        claim = world.claimed(world.worker())
        id = world.db.run(erasure.begin, tenant).id
        erasure.advance(world.db, desk.blobs, id, quick, threading.Event())
        assert world.find(batch).state == "cancelling"
        world.sql("update tenants set closed_at = closed_at - interval '1 hour' where id = :id", id=tenant)
        if after is None:
            recording = partial(as_holder.flush, claim=claim, seq=1, records=records(claim, 1))
            with held(world, recording) as (_, flush):
                assert not world.db.run(erasure.step, id, quick), "it comes again"
                flush.go_on()
        else:
            removal = Held(world, lambda tx, id=id: erasure.step(tx, id, quick), after)
            with ThreadPoolExecutor(2) as pool:
                removing = pool.submit(removal)
                removal.until_stopped()
                flushing = pool.submit(world.flush, claim, 1, claim.first_line)
                until_done_or_blocked(world, flushing)
                removal.go_on()
                removing.result(30)
                assert isinstance(flushing.exception(30), LeaseLost | None)
        erase(desk, quick, id)
    assert not any("late-" in row for rows in tables(world).values() for row in rows)


def test_retries_go_before_what_they_repeat_and_many_rows_in_many_steps(
    desk: Desk, world: World, quick: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "MOST", 2)
    monkeypatch.setattr(erasure, "_TRAIL", 3)
    monkeypatch.setattr(erasure, "_BATCHES", 2)
    for _ in range(3):
        world.drain(world.batch(2, 2, 2))
    parent = desk.validate(TWELVE)
    desk.answer(parent, failed=frozenset({1, 2}))
    desk.assemble(parent)
    asked = RetryRequest(api_key=None), None, world.settings
    child = world.db.run(retry, "acme", "batch", parent, Retry(failed=True), *asked).id
    assert world.one("select parent from batches where id = :id", id=child) == parent
    id, steps = world.db.run(erasure.begin, "acme").id, 0
    while world.db.run(erasure.step, id, quick):
        steps += 1
    assert steps > 10
    erase(desk, quick, id)
    assert named(world) == set()


def test_two_keepers_at_one_erasure_remove_each_thing_once(desk: Desk, world: World, quick: Settings) -> None:
    for _ in range(5):
        ended(desk)
    id = world.db.run(erasure.begin, "acme").id
    workers = [threading.Thread(target=erase, args=(desk, quick, id)) for _ in range(3)]
    for one in workers:
        one.start()
    for one in workers:
        one.join(60)
    gone = world.db.run(erasure.get, id).gone
    assert (gone["batches"], gone["files"]) == (5, 10)
    assert len(world.db.run(audit.page, action="tenant.erased", limit=10)) == 1
    assert blobs(world.settings) == named(world) == set()
