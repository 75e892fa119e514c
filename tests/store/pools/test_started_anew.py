"""A pool's versions that are started otherwise: whose work a member does, and what a second `penstock up` asks for."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
from store.world import World

from penstock.domain.api_errors import Conflict
from penstock.domain.models.version import Definition, Version
from penstock.domain.work.holder import Holder
from penstock.service.lifecycle import work
from penstock.service.models import registry, versions
from penstock.service.pools import pools
from penstock.stack import local_pool
from penstock.stack.local_pool import LocalModel

CHAT = "chat"
FIRST = Definition("/models/chat", "echo")
MORE = replace(FIRST, arguments=("--max-num-seqs=64",))


def member(world: World, wanted: Version | None, revision: str, definition: Definition = FIRST) -> Version:
    """The version that a worker serves which a host started as the one that is wanted."""
    holder = Holder(uuid.uuid4(), "gpu", CHAT, "machine", 1)
    world.db.run(work.register, holder, "starting", 8)
    number = wanted.number if wanted else None
    return world.db.run(versions.serve, holder, definition, revision, wanted=number)


def test_a_member_is_the_version_that_was_wanted_though_another_answers_alike(world: World) -> None:
    first = member(world, world.db.run(versions.add, CHAT, FIRST), "r1")
    for again in (MORE, FIRST, FIRST):  # the same definition as one that was served is a draft of its own
        draft = world.db.run(versions.add, CHAT, again)
        for _ in range(2):
            assert member(world, draft, "r1", again).name == draft.name
    assert member(world, first, "r1").name == first.name
    assert member(world, None, "r1", MORE).name == first.name, "a worker of no pool is told by its answers"


def test_what_has_changed_at_its_source_is_another_version(world: World) -> None:
    first = member(world, world.db.run(versions.add, CHAT, FIRST), "r1")
    second = world.db.run(versions.add, CHAT, MORE)
    assert member(world, second, "r1").name == second.name
    for wanted in (first, second):
        assert member(world, wanted, "r2").number == 3


def test_what_is_started_here_the_second_time_is_what_is_asked_and_does_what_waits(world: World) -> None:
    def up(*arguments: str) -> str:
        local_pool.make(world.db, [LocalModel(CHAT, "x", "echo", arguments)], 1, world.settings)
        return world.db.run(registry.read).heaviest(CHAT).queue

    assert up() == CHAT
    assert member(world, world.db.run(versions.get, CHAT, 1), "r1", Definition("x", "echo")).number == 1
    batch = world.batch(2, model=CHAT)
    assert up("--max-num-seqs=64") == "chat@v2"
    assert [one.queue for one in world.db.run(pools.get, local_pool.NAME).members] == ["chat@v2"]
    assert world.one("select model from slices where batch = :batch", batch=batch) == "chat@v2"
    assert up() == CHAT, "back again"


def test_a_member_of_a_retired_version_is_refused(world: World) -> None:
    member(world, world.db.run(versions.add, CHAT, FIRST), "r1")
    second = member(world, world.db.run(versions.add, CHAT, MORE), "r1")
    world.db.run(versions.retire, second.name)
    with pytest.raises(Conflict, match="is retired"):
        member(world, second, "r1")
