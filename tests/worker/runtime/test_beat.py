"""The beat: a holder trusts its lease for less time than the database does, and trusts it again once it is heard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import pytest
import structlog
from store.world import World

from penstock.service.core.transaction import Database
from penstock.service.lifecycle import work
from penstock.settings import Settings
from penstock_worker.runtime.beat import Beat, now


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    world = World(database_url, Settings(lease_seconds=600.0, beat_seconds=600.0))
    yield world
    world.check()
    world.close()


class Settling:
    """A database whose first transaction has to wait until something else was committed."""

    def __init__(self, db: Database, before: Callable[[], object]) -> None:
        self._db = db
        self._before = [before]
        self.heard: list[Any] = []

    def run(self, *call: Any) -> Any:
        """Run it after what was to come before it."""
        while self._before:
            self._before.pop()()
        self.heard.append(self._db.run(*call))
        return self.heard[-1]


def test_a_holder_that_is_not_heard_distrusts_itself_before_the_database_does(world: World) -> None:
    world.batch(2)
    holder = world.worker()
    asked_at = now()
    claim = world.claimed(holder)
    beat = Beat(world.db, holder, world.settings)
    with beat.holding(claim.lease, asked_at) as grip:
        assert grip.trusted
        # By both clocks 545 of the lease's 600 seconds pass.
        grip.trusted_until -= 545
        world.sql("update leases set expires_at = expires_at - interval '545 s' where id = :id", id=claim.lease)
        assert not grip.trusted
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
    with beat.holding(claim.lease, asked_at=now() - 600.0) as grip:
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


def test_a_lease_that_is_settled_while_a_beat_is_under_way_is_not_reported_as_lost(world: World) -> None:
    world.batch(2)
    holder = world.worker()
    claim = world.claimed(holder)
    settling = Settling(world.db, lambda: (world.finish(claim), rest.close()))
    beat = Beat(settling, holder, world.settings)  # type: ignore[arg-type]
    with structlog.testing.capture_logs() as said, ExitStack() as rest:
        grip = rest.enter_context(beat.holding(claim.lease, now()))
        beat.once()
    assert settling.heard[0].lost == {claim.lease}
    assert not grip.lost
    assert "lease_lost" not in [line["event"] for line in said]
