"""Pools by their operator's word: made, changed, pinned, woken and removed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from store.pool_world import A, B, C, awake, begin, host, make, put_away, read
from store.world import World

from penstock.domain.api_errors import BadRequest, Conflict, NotFound
from penstock.domain.models.version import Definition
from penstock.domain.pools.pool import Pool, PoolKind
from penstock.domain.work.lane import Lane
from penstock.service.core.transaction import Transaction
from penstock.service.models import versions
from penstock.service.pools import decisions, pools, situations
from penstock.service.pools.pools import WantedMember


def test_a_pool_is_what_its_operator_said(world: World) -> None:
    make(world, on_demand=B, device="h100", terms={"awake": 2, "bounds": {"standard": 120.0, "priority": None}})
    found = world.db.run(pools.get, "a")
    assert [(one.queue, one.on_demand, one.pinned) for one in found.members] == [
        (A, False, False),
        (B, True, False),
        (C, False, False),
    ]
    assert (found.kind, found.device, found.terms.awake) == (PoolKind.SHARED, "h100", 2)
    assert found.terms.bounds == {Lane.STANDARD: 120.0}
    assert found.terms.linger_seconds == 2.0, "as by default"
    with pytest.raises(Conflict):
        world.db.run(pools.create, "a", [WantedMember(A)])


def test_all_of_a_dedicated_pool_are_awake_and_stay(world: World) -> None:
    make(world, kind=PoolKind.DEDICATED)
    assert world.db.run(pools.get, "a").terms.awake == 3
    assert read(world, host(world)).pinned == {A, B, C}


@pytest.mark.parametrize(
    ("members", "how", "why"),
    [
        ([A], {"name": "Not a name"}, "name"),
        ([], {}, "1 to 100 versions"),
        ([A, A], {}, "named twice"),
        ([A], {"terms": {"awake": 0}}, "awake is from 1"),
        ([A], {"terms": {"bounds": {"flex": 3.0}}}, "priority and standard"),
        ([A], {"device": "a\nb"}, "printable"),
    ],
)
def test_what_can_not_be_a_pool_is_refused(world: World, members: list[str], how: dict[str, object], why: str) -> None:
    world.db.run(versions.add, A, Definition("/models/a", "vllm"))
    name = str(how.pop("name", "a"))
    with pytest.raises(BadRequest, match=why):
        world.db.run(pools.create, name, [WantedMember(one) for one in members], **how)


def test_versions_that_do_not_fit_together_are_no_pool(world: World) -> None:
    for model in (A, B):
        world.db.run(versions.add, model, Definition(f"/models/{model}", "vllm"))
    members = [WantedMember(A, memory_bytes=60 * 10**9), WantedMember(B, memory_bytes=30 * 10**9)]
    with pytest.raises(BadRequest, match=r"need 90.0 GB together, and the pool has 80.0 GB"):
        world.db.run(pools.create, "a", members, terms={"awake": 2}, memory_bytes=80 * 10**9)
    world.db.run(pools.create, "a", members, terms={"awake": 1}, memory_bytes=80 * 10**9)
    with pytest.raises(NotFound, match="no version yet"):
        world.db.run(pools.create, "b", [WantedMember("tiny")])


def test_a_changed_pool_keeps_the_pins_of_versions_that_stay(world: World) -> None:
    make(world)
    world.db.run(pools.pin, "a", B)
    changed = world.db.run(pools.change, "a", {"members": [WantedMember(B, True), WantedMember(C)], "device": "l4"})
    assert [(one.queue, one.on_demand, one.pinned) for one in changed.members] == [(B, True, True), (C, False, False)]
    assert changed.device == "l4"
    with pytest.raises(BadRequest, match="awake is from 1"):
        world.db.run(pools.change, "a", {"terms": {"awake": 0}})


def test_who_is_woken_comes_first_until_it_is_awake_and_may_be_tried_again(world: World) -> None:
    make(world)
    on = host(world)
    world.db.run(pools.unfit, "a", B, "it has no weights")
    assert read(world, on).unfit == {B}
    world.db.run(pools.wake, "a", f"{B}@v1")
    now = read(world, on)
    assert (now.pinned, now.unfit) == ({B}, frozenset())
    awake(world, on, B)
    assert read(world, on).pinned == frozenset()
    world.db.run(versions.add, "delta", Definition("/d", "vllm"))
    with pytest.raises(NotFound, match="alpha@v1, beta@v1, gamma@v1"):
        world.db.run(pools.wake, "a", "delta")


def test_no_more_are_pinned_than_may_be_awake(world: World) -> None:
    make(world)
    world.db.run(pools.pin, "a", A)
    for act in (pools.pin, pools.wake):
        with pytest.raises(Conflict, match="alpha@v1 is pinned"):
            world.db.run(act, "a", B)
    with pytest.raises(BadRequest, match="from 1"):
        world.db.run(pools.change, "a", {"terms": {"awake": 0}})
    world.db.run(pools.unpin, "a", A)
    assert world.db.run(pools.pin, "a", B).member(B).pinned  # type: ignore[union-attr]


def test_a_pool_is_removed_once_no_host_of_it_lives(world: World) -> None:
    make(world)
    on = host(world)
    begin(world, on)
    with pytest.raises(Conflict, match="live on machine"):
        world.db.run(pools.remove, "a", world.settings)
    world.sql("update workers set state = 'gone' where id = :id", id=on)
    world.db.run(pools.remove, "a", world.settings)
    with pytest.raises(NotFound):
        world.db.run(situations.read, "a", on, world.settings)
    rows = [world.one(f"select count(*) from {table}") for table in ("pool_versions", "pool_decisions")]
    assert rows == [0, 0]


def test_who_is_woken_while_it_is_awake_is_not_kept_awake(world: World) -> None:
    make(world)
    here, there = host(world), host(world)
    awake(world, here, A)
    world.db.run(pools.wake, "a", A)
    assert world.db.run(situations.look, "a", here, world.settings).pinned == frozenset()
    assert read(world, there).pinned == frozenset(), "it is awake elsewhere"
    assert read(world, here).pinned == frozenset()
    assert world.db.run(pools.get, "a").member(A).wake_asked_at is None  # type: ignore[union-attr]


@pytest.mark.parametrize("want", [pools.wake, pools.pin])
def test_a_cancelled_switch_is_not_tried_again_until_an_operator_wants_it_again(
    world: World, want: Callable[[Transaction, str, str], Pool]
) -> None:
    make(world)
    on = host(world)
    world.db.run(want, "a", B)
    assert read(world, on).pinned == {B}
    begin(world, on)
    world.db.run(decisions.cancel, "a")
    assert read(world, on).pinned == frozenset()
    world.db.run(want, "a", B)
    assert read(world, on).pinned == {B}


def test_who_came_after_all_since_its_switch_was_cancelled_takes_its_turns(world: World) -> None:
    make(world)
    on = host(world)
    world.batch(10, model=B)
    begin(world, on)
    world.db.run(decisions.cancel, "a")
    assert B not in read(world, on).waiting
    world.db.run(pools.wake, "a", B)
    world.db.run(decisions.end, begin(world, on), "done", 1.0)
    put_away(world, on, B, awake(world, on, B))
    assert B in read(world, on).waiting
    begin(world, on)
    world.db.run(decisions.cancel, "a")
    assert B not in read(world, on).waiting, "another one was cancelled"


def test_all_of_a_dedicated_pool_are_awake_on_each_of_its_hosts(world: World) -> None:
    make(world, kind=PoolKind.DEDICATED)
    here, there = host(world), host(world)
    awake(world, here, A)
    assert read(world, there).pinned == {A, B, C}


def test_a_version_that_a_pool_may_serve_is_not_retired_before_it_is_taken_out(world: World) -> None:
    make(world)
    second = world.db.run(versions.add, A, Definition("/models/second", "vllm"))
    world.db.run(pools.change, "a", {"members": [WantedMember(A), WantedMember(second.name)]})
    with pytest.raises(Conflict, match="is one of the versions of pool a: take it out first") as refused:
        world.db.run(versions.retire, second.name)
    assert refused.value.code == "version_in_use"
    world.db.run(pools.change, "a", {"members": [WantedMember(A)]})
    world.db.run(versions.retire, second.name)
    with pytest.raises(BadRequest, match="is retired"):
        world.db.run(pools.change, "a", {"members": [WantedMember(A), WantedMember(second.name)]})


def test_what_no_host_can_start_is_no_version_of_a_pool(world: World) -> None:
    world.db.run(versions.add, "far", Definition("http://there", "remote"))
    with pytest.raises(BadRequest, match="far@v1 runs elsewhere"):
        world.db.run(pools.create, "a", [WantedMember("far")])
