"""Versions and aliases in Postgres: what is fixed stays so, one row changes an alias, and work is pinned."""

from __future__ import annotations

import uuid
from array import array
from datetime import timedelta

import pytest
import sqlalchemy.exc
from sqlalchemy import text
from store import as_holder
from store.world import World

from penstock.domain.api_errors import BadRequest, Conflict, LeaseLost, NotFound
from penstock.domain.models.registry import Registry, UnknownTarget
from penstock.domain.models.version import Definition, Version, VersionState
from penstock.domain.work.holder import Holder
from penstock.domain.work.slice import Cut
from penstock.service.core.transaction import Transaction
from penstock.service.lifecycle import work
from penstock.service.models import aliases, guard, registry, repin, versions
from penstock.service.models.pins import LineModel
from penstock.service.planning import validate
from penstock.service.planning.scan import Scan
from penstock.store.accounts import prices
from penstock.store.batches import files

CHAT = "chat"
NAMES = [CHAT, "chat@v2", "chat@v3"]
FIRST = Definition("/models/chat", "echo")
SECOND = Definition("/models/chat", "echo", ("--answer-words", "9"))


def started(world: World, definition: Definition, revision: str, model: str = CHAT) -> Version:
    """A worker's engine is ready that was started so."""
    holder = Holder(uuid.uuid4(), "gpu", model, "host", 1)
    world.db.run(work.register, holder, "starting", 8)
    return world.db.run(versions.serve, holder, definition, revision)


def read(world: World) -> Registry:
    return world.db.run(registry.read)


def stable(world: World) -> dict[int, int]:
    split = world.db.run(aliases.get, CHAT, "stable").split
    assert split is not None
    return dict(split.weights)


def test_the_first_version_has_the_plain_name_and_becomes_stable(world: World) -> None:
    first = started(world, FIRST, "r1")
    assert (first.number, first.queue, first.name, first.registered) == (1, CHAT, "chat@v1", True)
    assert stable(world) == {1: 100}
    assert read(world).resolve(CHAT, 50).queue == CHAT


def test_a_worker_finds_its_version_again_and_another_revision_is_another_one(world: World) -> None:
    first, again, second = started(world, FIRST, "r1"), started(world, FIRST, "r1"), started(world, FIRST, "r2")
    assert (first.number, again.number, second.number) == (1, 1, 2)
    assert second.queue == "chat@v2"
    assert stable(world) == {1: 100}, "nobody promoted it"
    rows = world.rows("select model, model_version from workers where kind = 'gpu' order by started_at")
    assert [(row.model, row.model_version) for row in rows] == [("chat", 1), ("chat", 1), ("chat@v2", 2)]


def test_an_engine_whose_revision_can_not_be_known_is_told_by_its_definition(world: World) -> None:
    remote, other = Definition("http://a:1", "remote"), Definition("http://b:1", "remote")
    assert [started(world, one, "").number for one in (remote, remote, other)] == [1, 1, 2]


def test_an_added_version_is_a_draft_until_a_worker_serves_it(world: World) -> None:
    draft = world.db.run(versions.add, CHAT, SECOND)
    assert (draft.state, draft.number) == (VersionState.DRAFT, 1)
    assert world.db.run(versions.add, CHAT, SECOND) == draft
    served = started(world, SECOND, "r9")
    assert served.number == 1
    found = world.db.run(versions.get, CHAT, 1)
    assert (found.state, found.digest, found.registered) == (VersionState.READY, "r9", False)


def test_what_a_version_is_never_changes(world: World) -> None:
    started(world, FIRST, "r1")
    for change in ("source = 'x'", "arguments = '{a}'", "digest = 'r2'", "queue = queue || ''  , engine = 'vllm'"):
        with pytest.raises(sqlalchemy.exc.IntegrityError, match="never changes"), world.db.engine.begin() as conn:
            conn.execute(text(f"update model_versions set {change}"))
    with pytest.raises(sqlalchemy.exc.IntegrityError, match="may not become"), world.db.engine.begin() as conn:
        conn.execute(text("update model_versions set state = 'draft', ready_at = null"))


def test_weights_must_add_up_in_the_domain_and_in_the_database(world: World) -> None:
    started(world, FIRST, "r1"), started(world, FIRST, "r2")
    with pytest.raises(BadRequest, match="v1=90 \\+ v2=20 is 110"):
        world.db.run(aliases.change, CHAT, "stable", {1: 90, 2: 20})
    with pytest.raises(sqlalchemy.exc.IntegrityError), world.db.engine.begin() as conn:
        conn.execute(text("update model_aliases set weights = '{99}'"))


def test_a_canary_takes_its_share_and_a_rollback_is_one_row(world: World) -> None:
    started(world, FIRST, "r1"), started(world, FIRST, "r2")
    world.db.run(aliases.promote, CHAT, 2, weight=10)
    assert stable(world) == {1: 90, 2: 10}
    world.db.run(aliases.promote, CHAT, 2, weight=60)
    assert stable(world) == {1: 40, 2: 60}
    before = len(world.rows("select id from model_aliases"))
    world.db.run(aliases.rollback, CHAT)
    assert stable(world) == {1: 90, 2: 10}
    assert len(world.rows("select id from model_aliases")) == before + 1
    world.db.run(aliases.rollback, CHAT)
    assert stable(world) == {1: 100}
    with pytest.raises(Conflict, match="stood for nothing else before"):
        world.db.run(aliases.rollback, CHAT)


def test_after_a_rollback_and_a_new_change_a_rollback_goes_back_to_what_held_before_that_change(world: World) -> None:
    started(world, FIRST, "r1"), started(world, FIRST, "r2"), started(world, FIRST, "r3")
    world.db.run(aliases.promote, CHAT, 2)
    world.db.run(aliases.rollback, CHAT)
    world.db.run(aliases.promote, CHAT, 3)
    world.db.run(aliases.rollback, CHAT)
    assert stable(world) == {1: 100}


def test_a_rollback_of_a_rollback_never_goes_forward_whatever_was_changed_meanwhile(world: World) -> None:
    for revision in ("r1", "r2", "r3"):
        started(world, FIRST, revision)
    world.db.run(aliases.promote, CHAT, 2)
    world.db.run(aliases.promote, CHAT, 3)
    world.db.run(aliases.rollback, CHAT)
    world.db.run(aliases.change, CHAT, "stable", {2: 100}, guard={"least": 50})
    world.db.run(aliases.demand, CHAT, "stable", None)
    world.db.run(aliases.rollback, CHAT)
    assert stable(world) == {1: 100}
    world.db.run(aliases.demand, CHAT, "stable", None)
    with pytest.raises(Conflict, match="stood for nothing else before"):
        world.db.run(aliases.rollback, CHAT)


def test_no_version_has_a_name_that_is_none_an_engine_that_is_none_or_a_password(world: World) -> None:
    for model in ("", "x" * 201, "a\x1b[31m", " chat", "a\udc80"):
        with pytest.raises(BadRequest, match="1 to 200 printable"):
            world.db.run(versions.add, model, FIRST)
    for definition, words in (
        (Definition("/models/chat", "vlm"), "No engine is called 'vlm'; there are vllm"),
        (Definition("https://me:secret@host/v1", "remote"), "A password in an address"),
        (Definition("/models/chat", "echo", ("--x=\x1b[2J",)), "can be printed"),
    ):
        with pytest.raises(BadRequest, match=words) as error:
            world.db.run(versions.add, CHAT, definition)
        assert "secret" not in error.value.message
    assert not read(world).names & {"", " chat", CHAT}


def test_no_worker_serves_a_version_as_if_it_were_a_model(world: World) -> None:
    started(world, FIRST, "r1"), started(world, FIRST, "r2")
    with pytest.raises(Conflict, match="start its worker under the model's name, 'chat'"):
        started(world, FIRST, "r3", "chat@v2")
    assert [row.number for row in world.rows("select number from model_versions order by number")] == [1, 2]


def test_an_unknown_or_retired_version_is_refused_by_name(world: World) -> None:
    started(world, FIRST, "r1"), started(world, FIRST, "r2")
    with pytest.raises(NotFound, match="chat@v7"):
        world.db.run(aliases.change, CHAT, "stable", {7: 100})
    world.db.run(versions.retire, "chat@v2")
    with pytest.raises(Conflict, match="chat@v2 is retired"):
        world.db.run(aliases.change, CHAT, "stable", {2: 100})
    now = read(world)
    for asked, code in (("chat@v2", "version_retired"), ("chat@v9", "version_not_found"),
                        ("chat@canary", "alias_not_found"), ("what", "model_not_found")):  # fmt: skip
        with pytest.raises(UnknownTarget) as refused:
            now.resolve(asked, 0)
        assert refused.value.code == code
    with pytest.raises(Conflict, match="retired"):
        started(world, FIRST, "r2")


def test_a_version_that_an_alias_stands_for_is_not_retired(world: World) -> None:
    started(world, FIRST, "r1")
    with pytest.raises(Conflict, match="chat@stable stands for chat@v1"):
        world.db.run(versions.retire, "chat@v1")


def test_a_version_with_open_work_is_not_retired(world: World) -> None:
    started(world, FIRST, "r1"), started(world, FIRST, "r2")
    batch = world.batch(1, model="chat@v2")
    with pytest.raises(Conflict, match=f"Open work is pinned to chat@v2 \\({batch}\\)"):
        world.db.run(versions.retire, "chat@v2")


def test_a_version_has_the_price_of_its_name_until_it_has_one_of_its_own(world: World) -> None:
    started(world, FIRST, "r1"), started(world, FIRST, "r2")

    def price(model: str, input: int) -> None:
        world.db.run(lambda tx: prices.add(tx.conn, model, currency="EUR", input=input, cached_input=0, output=0,
                                           gpu=0, valid_from=None))  # fmt: skip

    def valid() -> dict[str, int]:
        return {name: one.input for name, one in world.db.run(lambda tx: prices.valid(tx.conn, NAMES)).items()}

    price(CHAT, 5)
    assert valid() == {CHAT: 5, "chat@v2": 5}
    price("chat@v2", 7)
    price(CHAT, 6)
    assert valid() == {CHAT: 6, "chat@v2": 7}
    assert started(world, FIRST, "r3").number == 3
    assert valid()["chat@v3"] == 6


def outcome(world: World, model: str, lines: int, failed: int) -> None:
    """A batch of the model's has ended just now, with so many failed lines."""
    world.batch(lines, model=model)
    claim = world.claimed(world.worker(model))
    world.flush(claim, 1, *range(1, failed + 1), failed=True)
    world.flush(claim, 2, *range(failed + 1, lines + 1))
    world.db.run(as_holder.settle, claim)


def test_a_guard_takes_a_share_back_and_never_gives_one(world: World) -> None:
    started(world, FIRST, "r1"), started(world, FIRST, "r2")
    world.db.run(aliases.promote, CHAT, 2, weight=10, guard={"least": 100, "worse_percent": 2.0})
    outcome(world, CHAT, 300, 3), outcome(world, "chat@v2", 90, 60)
    assert guard.look_at_all(world.db) == 0, "too few"
    outcome(world, "chat@v2", 60, 20)
    assert guard.look_at_all(world.db) == 1
    now = world.db.run(aliases.get, CHAT, "stable")
    assert stable(world) == {1: 100}
    assert now.reason == "guard: v2 had 53.3 % errors of 150, against 1.0 % of 300"
    assert now.actor == "platform"
    assert guard.look_at_all(world.db) == 0
    world.db.run(aliases.change, CHAT, "stable", {1: 90, 2: 10})
    assert guard.look_at_all(world.db) == 0, "nobody asked for one"


def test_unstarted_work_is_pinned_anew_and_what_has_begun_stays(world: World) -> None:
    started(world, FIRST, "r1"), started(world, FIRST, "r2")
    batch = world.batch(2, 2, 2, model=CHAT)
    begun = world.claimed(world.worker(CHAT))
    world.flush(begun, 1, begun.first_line)
    world.db.run(work.release, begun.lease)
    world.db.run(aliases.promote, CHAT, 2)
    done = world.db.run(repin.repin, "chat@v1", CHAT, world.settings)
    assert (done.batches, done.slices, done.after) == (1, 2, None)
    rows = world.rows("select model from slices where batch = :batch order by id", batch=batch)
    assert [row.model for row in rows] == [CHAT, "chat@v2", "chat@v2"], "the first has an answer already"
    [row] = world.rows("select versions from batches where id = :batch", batch=batch)
    assert row.versions == {CHAT: [1, 2]}
    again = world.db.run(repin.repin, "chat@v1", CHAT, world.settings)
    assert (again.batches, again.slices) == (0, 0)
    with pytest.raises(BadRequest, match="no version or alias"):
        world.db.run(repin.repin, "chat@v1", "tiny", world.settings)


def test_a_worker_that_is_alone_takes_its_name_over(world: World) -> None:
    started(world, FIRST, "r1")
    batch = world.batch(1, 1, model=CHAT)
    world.sql("update batches set versions = '{\"chat\": [1]}' where id = :id", id=batch)
    world.sql("update slices set asked = 'chat@v1' where id = (select max(id) from slices)")
    holder = Holder(uuid.uuid4(), "gpu", CHAT, "host", 1)
    world.db.run(work.register, holder, "starting", 8)
    gone = timedelta(seconds=60)
    second = world.db.run(versions.serve, holder, SECOND, "r2", promoted=True, gone=gone)
    assert (second.number, stable(world)) == (2, {2: 100})
    assert [row.model for row in world.slices(batch)] == ["chat@v2", CHAT], "but not what names the very version"
    [row] = world.rows("select versions from batches where id = :id", id=batch)
    assert row.versions == {CHAT: [1, 2]}
    elsewhere = Holder(uuid.uuid4(), "gpu", CHAT, "another", 1)
    world.db.run(work.register, elsewhere, "ready", 8)
    world.db.run(versions.serve, elsewhere, SECOND, "r2")
    world.db.run(versions.serve, holder, FIRST, "r3", promoted=True, gone=gone)
    assert stable(world) == {2: 100}, "another machine serves it"


def test_nothing_is_planned_for_a_version_that_was_retired_while_its_file_was_read(world: World) -> None:
    started(world, FIRST, "r1"), started(world, FIRST, "r2")
    batch = world.validating()
    found, lease = world.claim_batch(batch, "validate")
    targets = {"chat@v2": read(world).resolve("chat@v2", 0)}
    world.db.run(versions.retire, "chat@v2")

    def begin(tx: Transaction) -> None:
        key = f"{found.tenant}/plans/late"
        files.intend(tx.conn, key)
        scanned = Scan(numbers=array("I", [1]), models=[LineModel("chat@v2")])
        cuts = [Cut("chat@v2", 0, 100, 1, 1, 1, 10)]
        validate.begin(tx, found, lease, scanned, key, cuts, world.settings, targets=targets)

    with pytest.raises(LeaseLost):
        world.db.run(begin)
    assert world.find(batch).state == "validating"
    assert world.rows("select * from slices") == []
