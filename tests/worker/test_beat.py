"""The beat: a holder trusts its lease for less time than the database does, and trusts it again once it is heard."""

from __future__ import annotations

import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
from store.world import World

from penstock.service import work
from penstock.settings import Settings
from penstock_worker.beat import Beat, now


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    world = World(database_url, Settings(lease_seconds=1.0, beat_seconds=600.0))
    yield world
    world.check()
    world.close()


def until(sight: bool, look: object, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while look() is not sight:  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_holder_that_is_not_heard_distrusts_itself_before_the_database_does(world: World) -> None:
    world.batch(2)
    holder = world.worker()
    asked_at = now()
    claim = world.claimed(holder)
    beat = Beat(world.db, holder, world.settings)
    with beat.holding(claim.lease, asked_at) as grip:
        assert grip.trusted
        until(False, lambda: grip.trusted)
        assert world.one("select expires_at > clock_timestamp() from leases where id = :id", id=claim.lease)
        beat.once()
        assert grip.trusted
        world.reap(claim.batch)
        beat.once()
        assert grip.lost
        assert not grip.trusted
        assert grip.news.is_set()


def test_a_claim_whose_answer_came_late_is_not_trusted_until_a_beat_says_whose_it_is(world: World) -> None:
    world.batch(2)
    holder = world.worker()
    claim = world.claimed(holder)
    beat = Beat(world.db, holder, world.settings)
    with beat.holding(claim.lease, asked_at=now() - 5.0) as grip:
        assert not grip.trusted
        beat.once()
        assert grip.trusted


def test_what_a_holder_does_not_name_is_given_back_at_its_second_beat(world: World) -> None:
    batch = world.batch(2)
    holder = world.worker()
    nonce = uuid4()
    assert world.claim(holder, nonce=nonce)
    beat = Beat(world.db, holder, world.settings)
    beat.once()
    assert world.states(batch) == ["running"]
    beat.once()
    assert world.states(batch)[0] in ("queued", "ready")
    assert world.db.run(work.claim, holder, [], uuid4(), world.settings) == []
