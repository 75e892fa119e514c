"""Adapters in Postgres: versions on a base, whose queue their work waits in; a claim says which one it asks."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from store.world import World

from penstock.domain.adapter import Adapter, AdapterFault
from penstock.domain.api_errors import BadRequest, Conflict
from penstock.domain.models.registry import ModelTarget, UnknownTarget
from penstock.domain.models.version import Definition, Version, VersionState
from penstock.domain.work.holder import Holder
from penstock.domain.work.lane import LANES
from penstock.domain.work.slice import Claim
from penstock.service.lifecycle import dispatch, work
from penstock.service.models import adapters, aliases, registry, repin, versions
from penstock.service.models.adapters import AdapterPlace

CHAT = "chat"
ROOM = ("--enable-lora", "--max-loras=2")


def base(world: World, revision: str = "r1", arguments: tuple[str, ...] = ROOM) -> tuple[Version, Holder]:
    """A worker of a base is ready."""
    holder = Holder(uuid.uuid4(), "gpu", CHAT, "host", 1)
    world.db.run(work.register, holder, "ready", 8)
    version = world.db.run(versions.serve, holder, Definition("/models/chat", "echo", arguments), revision)
    return version, Holder(holder.id, "gpu", version.queue, "host", 1)


def added(world: World, model: str, digest: str | None, on: str = CHAT) -> Version:
    place = AdapterPlace(f"/adapters/{model}-{digest}", digest)
    return world.db.run(adapters.add, model, world.db.run(adapters.base, on), place)


def resolved(world: World, asked: str) -> ModelTarget:
    return world.db.run(registry.read).resolve(asked, 0)


def waits(world: World, asked: str) -> str:
    """A batch whose one slice asks this."""
    target = resolved(world, asked)
    id = world.batch(2, model=target.queue)
    world.sql("update slices set asked = :asked, adapter = :adapter where batch = :batch",
              asked=asked, adapter=target.adapter.id if target.adapter else None, batch=id)  # fmt: skip
    return id


def claimed(world: World, holder: Holder) -> list[Claim]:
    assert holder.model
    world.db.run(dispatch.feed, holder.model, world.settings)
    return world.db.run(work.claim, holder, LANES, uuid.uuid4(), world.settings)


def test_the_first_one_of_a_name_is_its_stable_and_its_work_is_its_bases(world: World) -> None:
    base(world)
    first = added(world, "sql", "d1")
    assert (first.name, first.state, first.definition.base, first.served_as) == ("sql@v1", "draft", CHAT, CHAT)
    assert resolved(world, "sql") == ModelTarget("sql", CHAT, 1, Adapter("sql", "d1"))
    second = added(world, "sql", "d2")
    assert resolved(world, "sql").number == 1, "nobody promoted it"
    world.db.run(aliases.promote, "sql", 2)
    assert resolved(world, "sql") == ModelTarget("sql", CHAT, 2, Adapter("sql@v2", "d2"))
    assert added(world, "sql", "d2") == second, "the same again"


def test_a_slice_says_which_adapter_it_asks_and_its_digest(world: World) -> None:
    _, holder = base(world)
    added(world, "sql", "d1")
    waits(world, "sql")
    [claim] = claimed(world, holder)
    assert (claim.model, claim.asked, claim.adapter) == (CHAT, "sql", Adapter("sql", "d1"))


def test_what_waited_for_a_name_goes_to_the_base_once_it_is_an_adapters(world: World) -> None:
    _, holder = base(world)
    world.batch(2, model="sql")
    assert claimed(world, holder) == []
    added(world, "sql", "d1")
    [claim] = claimed(world, holder)
    assert (claim.asked, claim.adapter) == ("sql", Adapter("sql", "d1"))


def test_one_whose_files_nobody_saw_gets_its_digest_when_it_is_loaded_and_keeps_it(world: World) -> None:
    base(world)
    made = world.db.run(adapters.add, "sql", world.db.run(adapters.base, CHAT), AdapterPlace("org/sql", None))
    assert resolved(world, "sql").adapter == Adapter("sql", None)
    world.db.run(adapters.loaded, made.queue, "d1")
    world.db.run(adapters.loaded, made.queue, "d1")
    found = world.db.run(versions.get, "sql", 1)
    assert (found.digest, found.state) == ("d1", VersionState.READY)
    with pytest.raises(AdapterFault, match="are not those that sql@v1 was made of"):
        world.db.run(adapters.loaded, made.queue, "d2")


def test_repinning_a_base_leaves_its_adapters_work_where_it_is_and_repinning_an_adapter_moves_it(world: World) -> None:
    base(world), base(world, "r2")
    for digest in ("d1", "d2"):
        added(world, "sql", digest)
    plain, adapted = waits(world, CHAT), waits(world, "sql")

    def pinned() -> dict[str, tuple[str, str | None]]:
        return {row.batch: (row.model, row.adapter) for row in world.rows("select batch, model, adapter from slices")}

    world.db.run(aliases.promote, CHAT, 2)
    world.db.run(repin.repin, "chat@v1", CHAT, world.settings)
    assert pinned() == {plain: ("chat@v2", None), adapted: (CHAT, "sql")}
    world.db.run(aliases.promote, "sql", 2)
    world.db.run(repin.repin, "sql@v1", "sql", world.settings)
    assert pinned() == {plain: ("chat@v2", None), adapted: (CHAT, "sql@v2")}


def test_neither_a_base_with_adapters_nor_an_adapter_with_open_work_is_retired(world: World) -> None:
    base(world), base(world, "r2")
    for digest in ("d1", "d2", "d3"):
        added(world, "sql", digest)
    world.db.run(aliases.promote, CHAT, 2)
    with pytest.raises(Conflict, match="Adapters hang on chat@v1 \\(sql@v1, sql@v2, sql@v3\\)"):
        world.db.run(versions.retire, "chat@v1")
    waits(world, "sql@v2")
    with pytest.raises(Conflict, match="Open work is pinned to sql@v2"):
        world.db.run(versions.retire, "sql@v2")
    assert world.db.run(versions.retire, "sql@v3").state is VersionState.RETIRED
    with pytest.raises(UnknownTarget, match="is retired"):
        resolved(world, "sql@v3")


def test_a_base_that_can_be_none_is_refused_by_name(world: World, tmp_path: Path) -> None:
    base(world, arguments=())
    world.db.run(versions.add, "far", Definition("http://far:1", "remote"))
    for asked, told in (
        ("nobody", "The base: The model 'nobody' does not exist."),
        ("tiny", "The base 'tiny' has no version yet"),
        (CHAT, "chat@v1 is started without room for adapters"),
        ("far@v1", "far@v1 runs on remote, which loads no adapters here"),
    ):
        with pytest.raises(BadRequest) as refused:
            world.db.run(adapters.base, asked)
        assert refused.value.message.startswith(told)
    on, _ = base(world, "r2")
    with pytest.raises(BadRequest, match="There is no adapter folder"):
        adapters.look(str(tmp_path / "none"), on)
    assert adapters.look("org/sql", on) == AdapterPlace("org/sql", None)


def test_a_name_is_a_models_or_an_adapters_and_never_both(world: World) -> None:
    base(world)
    with pytest.raises(BadRequest, match="'chat' is a model with versions of its own"):
        added(world, CHAT, "d1")
    added(world, "sql", "d1")
    with pytest.raises(BadRequest, match="'sql' is an adapter's name"):
        world.db.run(versions.add, "sql", Definition("/models/sql", "echo"))
    assert resolved(world, CHAT) == ModelTarget(CHAT, CHAT, 1)


@pytest.mark.parametrize("source", ["x" * 300, "/" + "x" * 300, "~nobodyhere/x", "/loop"])
def test_a_source_that_can_be_no_path_is_one_line(world: World, source: str, tmp_path: Path) -> None:
    on, _ = base(world)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(BadRequest, match="can't be looked at") as error:
        adapters.look(str(tmp_path / "loop") if source == "/loop" else source, on)
    assert "\n" not in error.value.message
