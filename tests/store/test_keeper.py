"""The keeper after an outage: silence means nothing until the workers had time to be heard again."""

from __future__ import annotations

from store.world import World

from penstock import keeper


def test_after_an_outage_nobody_is_reaped_for_two_beats(world: World) -> None:
    clock = [100.0]
    view = keeper.View(lambda: clock[0])
    batch = world.batch(2)
    world.claimed(world.worker())
    world.lapse(batch)
    view.lose()
    clock[0] += 2 * world.settings.beat_seconds - 0.1
    assert "reap" not in keeper.tick(world.db, world.settings, view)
    assert world.states(batch) == ["running"]
    clock[0] += 0.2
    assert keeper.tick(world.db, world.settings, view)["reap"] == 1


def test_a_keeper_that_lost_sight_twice_waits_from_the_second_time_on(world: World) -> None:
    clock = [0.0]
    view = keeper.View(lambda: clock[0])
    view.lose()
    clock[0] = 9.0
    view.lose()
    clock[0] = 18.0
    assert not view.is_clear(world.settings)
    clock[0] = 19.1
    assert view.is_clear(world.settings)


def test_a_keeper_that_never_lost_sight_reaps_at_once(world: World) -> None:
    batch = world.batch(2)
    world.claimed(world.worker())
    world.lapse(batch)
    assert keeper.tick(world.db, world.settings)["reap"] == 1
