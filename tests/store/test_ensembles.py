"""Ensembles in Postgres: versions that never change, names that are one thing's, and slices that say whose they are."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import sqlalchemy.exc
from store.world import World

from penstock.domain.api_errors import BadRequest, Conflict, NotFound
from penstock.domain.models.version import Definition
from penstock.domain.work.holder import Holder
from penstock.service.admin import models
from penstock.service.ensembles import ensembles
from penstock.service.lifecycle import work
from penstock.service.models import aliases, repin, versions


def definition(*members: str, name: str = "support", **more: Any) -> dict[str, Any]:
    rules = [{"when": {"regex": one}, "use": one} for one in members[1:]]
    whole = {"name": name, "kind": "route", "members": [{"model": one} for one in members], "rules": rules}
    return (whole if rules else {key: whole[key] for key in whole if key != "rules"}) | {"default": members[0]} | more


@pytest.fixture(autouse=True)
def known(world: World) -> None:
    for name in ("small", "big"):
        world.db.run(models.add, name)


def served(world: World, model: str, *revisions: str) -> None:
    for revision in revisions:
        holder = Holder(uuid.uuid4(), "gpu", model, "host", 1)
        world.db.run(work.register, holder, "gone", 8)
        world.db.run(versions.serve, holder, Definition(f"/{model}", "echo", (f"--{revision}",)), revision)


def test_the_same_name_again_is_its_next_version_and_the_same_definition_is_not(world: World) -> None:
    first = world.db.run(ensembles.add, definition("small", "big"))
    assert (first.name, first.label) == ("support", "v1")
    assert world.db.run(ensembles.add, definition("small", "big")) == first
    second = world.db.run(ensembles.add, definition("big", "small"))
    assert second.label == "v2"
    assert world.db.run(ensembles.view, "support").ensemble == second
    assert world.db.run(ensembles.view, "support", 1).ensemble == first
    assert [one.name for one in world.db.run(ensembles.page)] == ["support"]
    world.db.run(ensembles.remove, "support")
    for look in (("support",), ("support", 1)):
        with pytest.raises(NotFound):
            world.db.run(ensembles.view, *look)
    assert world.db.run(ensembles.add, definition("small", "big")).label == "v3", "numbers are never used again"
    acts = world.rows("select action from audit where target = 'support' order by id")
    assert [row.action for row in acts] == ["ensemble.added", "ensemble.added", "ensemble.removed", "ensemble.added"]


@pytest.mark.parametrize(
    ("wanted", "param", "words"),
    [
        (definition("small", "nobody"), "members[1].model", "The model 'nobody' does not exist."),
        (definition("small", "big@v7"), "members[1].model", "The model 'big' has no version v7."),
        (definition("small", "big@none"), "members[1].model", "has no alias 'none'"),
        (definition("other"), "members[0].model", "'other' is an ensemble: its members are models."),
        (definition("small", name=" x"), "name", "no space at its ends"),
        (definition("small", "big", rules=[{"when": {"regex": "("}, "use": "big"}]), "rules[0].when.regex", "is none"),
        (definition("small", members=[{"model": "small", "params": {"stop": "x" * 70_000}}]), None, "65536 bytes"),
    ],
)
def test_what_the_registry_knows_not_to_be_possible_is_refused_when_it_is_added(
    world: World, wanted: dict[str, Any], param: str | None, words: str
) -> None:
    world.db.run(ensembles.add, definition("small", name="other"))
    with pytest.raises(BadRequest) as refused:
        world.db.run(ensembles.add, wanted)
    assert (refused.value.param, words in refused.value.message) == (param, True), refused.value.message
    assert [one.name for one in world.db.run(ensembles.page)] == ["other"]


def test_a_name_is_a_models_or_an_ensembles_whoever_comes_first(world: World) -> None:
    with pytest.raises(Conflict, match="is a model's name"):
        world.db.run(ensembles.add, definition("small", name="big"))
    world.db.run(ensembles.add, definition("small"))
    worker = Holder(uuid.uuid4(), "gpu", "support", "host", 1)
    for act, arguments in (
        (models.add, ("support",)),
        (work.register, (worker, "ready", 8)),
        (versions.add, ("support", Definition("/x", "echo"))),
    ):
        with pytest.raises(Conflict, match="is an ensemble's name"):
            world.db.run(act, *arguments)  # type: ignore[arg-type]
    with pytest.raises(sqlalchemy.exc.IntegrityError, match="is taken"):
        world.sql("insert into models (name, source) values ('support', 'added')")
    with pytest.raises(sqlalchemy.exc.IntegrityError, match="is taken"):
        world.sql("insert into ensembles (name, version, definition, actor) values ('big', 1, '{}', 'cli')")
    world.db.run(ensembles.remove, "support")
    assert world.db.run(models.add, "support") is True


def test_a_version_never_changes(world: World) -> None:
    world.db.run(ensembles.add, definition("small"))
    for change in ("definition = '{}'", "version = 9", "name = 'x'"):
        with pytest.raises(sqlalchemy.exc.IntegrityError, match="never changes"):
            world.sql(f"update ensembles set {change}")


def test_a_member_is_not_retired_or_removed_under_an_ensemble(world: World) -> None:
    served(world, "big", "one", "two")
    world.db.run(aliases.change, "big", "canary", {2: 100})
    world.db.run(ensembles.add, definition("big@v2", "big@canary"))
    world.db.run(aliases.change, "big", "canary", {1: 100})
    with pytest.raises(Conflict, match="big@v2 is a member of support"):
        world.db.run(versions.retire, "big@v2")
    with pytest.raises(Conflict, match="big@canary is a member of support"):
        world.db.run(aliases.remove, "big", "canary")
    world.db.run(ensembles.add, definition("big"))
    world.db.run(versions.retire, "big@v2")
    world.db.run(aliases.remove, "big", "canary")


def test_an_ensemble_of_a_newer_release_is_not_there_for_this_one(world: World) -> None:
    world.db.run(ensembles.add, definition("small"))
    world.sql("insert into ensembles (name, version, definition, actor) values ('new', 1, :one, 'cli')",
              one='{"name": "new", "kind": "oracle"}')  # fmt: skip
    assert [one.name for one in world.db.run(ensembles.page)] == ["support"]


def test_a_repin_moves_lines_of_a_member_that_names_no_version(world: World) -> None:
    served(world, "big", "one", "two")
    world.db.run(ensembles.add, definition("big", "big@v1"))
    row = world.one("select id from ensembles")
    for member in ("big", "big@v1"):
        batch = world.batch(2, model="big")
        world.sql(
            "update slices set asked = 'support', ensemble = :id, member = :member where batch = :batch",
            id=row, member=member, batch=batch,
        )  # fmt: skip
        world.sql("""update batches set versions = cast(:pins as jsonb) where id = :batch""",
                  pins=f'{{"support": [1], "{member}": [1]}}', batch=batch)  # fmt: skip
    world.db.run(aliases.promote, "big", 2)
    assert world.db.run(repin.repin, "big@v1", "big", world.settings).slices == 1
    rows = world.rows("select s.member, s.model, b.versions from slices s join batches b on b.id = s.batch order by 1")
    assert [tuple(row) for row in rows] == [
        ("big", "big@v2", {"support": [1], "big": [2]}),
        ("big@v1", "big", {"support": [1], "big@v1": [1]}),
    ]
