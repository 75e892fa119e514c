"""Every pair of moves at once, one stopped inside its transaction: no invariant breaks, and none deadlocks.

Sequential tests can't see these races. Without the lock in flush this file is red: the update of the counts at the
end of that statement locks the row too, so the tests that show it are those where the slice changes hands before it.

Of the many meetings of two moves a run draws some; PENSTOCK_MEETINGS=all has them all, and PENSTOCK_SEED draws others.
"""

from __future__ import annotations

import itertools
import os
import random
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text
from store import as_holder
from store.meeting import MOVES, meet
from store.scenes import Scenes
from store.steps import Stage
from store.two import Use, held, interleave, until_done_or_blocked
from store.world import MODEL, World, records, remaining

from penstock.domain.api_errors import LeaseLost
from penstock.domain.work.batch import BatchState
from penstock.domain.work.lane import LANES
from penstock.domain.work.slice import Claim
from penstock.service.control import cancel
from penstock.service.core.transaction import Transaction
from penstock.service.lifecycle import dispatch, work
from penstock.service.results import assemble
from penstock.settings import Settings


def test_a_reap_and_a_new_claim_wait_for_a_flush_that_has_not_committed(world: World) -> None:
    batch = world.batch(3)
    old = world.claimed(world.worker())
    heir = world.worker()
    world.lapse(batch)

    def reap_and_claim() -> Claim | None:
        assert world.db.run(dispatch.reap, batch) == 1
        world.db.run(dispatch.feed, MODEL, world.settings)
        return world.claim(heir)

    with held(world, lambda tx: as_holder.flush(tx, old, 1, records(old, 1, 2), None)) as (pool, flush):
        taking = pool.submit(reap_and_claim)
        waited = until_done_or_blocked(world, taking)
        flush.go_on()
        new = taking.result(30)
    assert new is not None
    assert new.recorded == {1, 2}, "the new holder would ask lines again that were recorded"
    world.finish(new)
    assert waited, "the reap did not wait for the flush"
    assert world.find(batch).completed == 3


def test_a_slice_cannot_change_hands_while_a_flush_is_in_the_middle_of_its_statement(world: World) -> None:
    batch = world.batch(3)
    old = world.claimed(world.worker())
    heir = world.worker()
    world.lapse(batch)
    world.sql("""
        create function stall() returns trigger language plpgsql as $$
        begin perform pg_advisory_xact_lock(1); return new; end $$""")
    world.sql("create trigger slow before insert on segments for each row when (new.seq = 99) execute function stall()")

    def reap_and_answer() -> Claim:
        assert world.db.run(dispatch.reap, batch) == 1
        world.db.run(dispatch.feed, MODEL, world.settings)
        new = world.claimed(heir)
        world.flush(new, 1, remaining(new)[0])
        return new

    with held(world, lambda tx: tx.conn.execute(text("select pg_advisory_xact_lock(1)"))) as (pool, stall):
        flushing = pool.submit(world.flush, old, 99, 1)  # has seen that the lease is its own, and not yet inserted
        assert until_done_or_blocked(world, flushing)
        taking = pool.submit(reap_and_answer)
        waited = until_done_or_blocked(world, taking, waiters=2)
        stall.go_on()
        new, flushed = taking.result(30), flushing.exception(30)
    world.check()  # a line in two segments, if the reap did not wait
    assert flushed is None
    assert new.recorded == {1}
    assert waited, "the reap did not wait for the flush"


def test_the_same_flush_on_two_connections_counts_once(world: World) -> None:
    batch = world.batch(2)
    claim = world.claimed(world.worker())
    with held(world, lambda tx: as_holder.flush(tx, claim, 1, records(claim, 1), None)) as (pool, first):
        again = pool.submit(world.flush, claim, 1, 1)
        assert until_done_or_blocked(world, again)
        first.go_on()
        assert again.result(30) is None
    assert world.find(batch).completed == 1


def test_the_same_nonce_on_two_connections_opens_one_lease(world: World) -> None:
    world.batch(1, 1)
    worker, nonce = world.worker(), uuid.uuid4()

    def claim_once() -> Use:
        return lambda tx: work.claim(tx, worker, list(LANES), nonce, world.settings)

    for after in (None, 1, 2, 3, 4):
        first, second, _ = interleave(world, claim_once(), claim_once(), after)
        assert first == second
    assert world.one("select count(*) from leases where kind = 'slice'") == 1


def test_two_last_settles_at_once_finalize_the_batch_once(world: World) -> None:
    batch = world.batch(1, 1)
    worker = world.worker()
    claims = [world.claimed(worker) for _ in range(2)]
    for claim in claims:
        world.flush(claim, 1, *remaining(claim))
    one, other = (lambda tx, c=claim: as_holder.settle(tx, c) for claim in claims)
    assert interleave(world, one, other, None)[:2] == (None, None)
    assert world.find(batch).state is BatchState.FINALIZING
    assert [hint.task for hint in world.said].count("penstock.assemble") <= 1
    world.drain(batch)


@pytest.fixture(scope="module")
def crowd(shared_database_url: str) -> Iterator[tuple[World, Scenes, Stage]]:
    """A world whose database serves all pairs, with scenes to copy and two connections to meet in them."""
    world = World(shared_database_url, Settings(database_url=shared_database_url, ready_per_worker=4))
    with Stage(world) as stage:
        yield world, Scenes(world, stage.look), stage
    world.close()


@pytest.mark.parametrize("ender", ["reap", "release", "unreadable", "engine dies"])
def test_a_flush_waits_for_whoever_takes_its_slice_away_and_is_refused(crowd: Any, ender: str) -> None:
    world, scenes, _ = crowd
    scene = scenes.copy("running half, ready")
    move = MOVES["running"][ender]
    with held(world, lambda tx: move(tx, world, scenes, scene)) as (pool, taking):
        flushing = pool.submit(world.flush, scene.claim, 7, 2)
        assert until_done_or_blocked(world, flushing)
        taking.go_on()
        assert isinstance(flushing.exception(30), LeaseLost)
    assert world.find(scene.batch).completed == 1
    scenes.forget(scene)


# The rest of the moves take the same locks as one of these: each of these pairs meets at every statement.
CLOSELY = (
    *("flush", "reap", "claim", "settle", "release", "cancel", "expire", "feed", "beat", "move_on"),
    *("pause", "resume", "move", "promote", "record"),
)


ALL = os.environ.get("PENSTOCK_MEETINGS") == "all"


def chance(*what: str) -> random.Random:
    """What is drawn of these, always the same."""
    return random.Random(" ".join([os.environ.get("PENSTOCK_SEED", "1"), *what]))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", CLOSELY)
def test_a_move_beside_each_other_keeps_every_invariant_wherever_it_is_stopped(crowd: Any, first: str) -> None:
    """Each pair meets with the first held before its commit; some or all after one of its statements or after each."""
    world, scenes, stage = crowd
    for second in CLOSELY:
        name = "running half, ready" if {"flush", "record"} & {first, second} else "running whole, ready"
        meet(world, scenes, stage, scenes.copy(name), (first, second), True, stage.hold(None))
        statements = range(1, stage.actors[0].steps)
        drawn = chance(first, second)
        for after in statements if ALL else [drawn.choice(statements)] if drawn.random() < 0.1 else []:
            meet(world, scenes, stage, scenes.copy(name), (first, second), True, stage.hold(after))


@pytest.mark.parametrize("name", ["running half, queued", "validating again", "finalizing again"])
def test_every_two_moves_agree_with_one_held_before_its_commit(crowd: Any, name: str) -> None:
    world, scenes, stage = crowd
    for pair in itertools.product(MOVES[scenes.protos[name].kind], repeat=2):
        others = not {*pair} <= {*CLOSELY} or not name.startswith("running")
        if others and (ALL or chance(name, *pair).random() < 0.08):
            meet(world, scenes, stage, scenes.copy(name), pair, True, stage.hold(None))


def test_validations_commit_and_a_cancel_at_once_have_one_winner(world: World) -> None:
    for after, cancel_first in itertools.product((None, 1, 2, 3), (True, False)):
        batch = world.validating()
        found, lease = world.claim_batch(batch, "validate")

        def begin(tx: Transaction, found=found, lease=lease) -> None:
            world.begin(tx, found, lease, (1, 1))

        def stop(tx: Transaction, batch=batch) -> None:
            cancel.cancel(tx, "acme", "batch", batch)

        pair = (stop, begin) if cancel_first else (begin, stop)
        first, second, _ = interleave(world, *pair, after)
        begun = second if cancel_first else first
        assert begun is None or isinstance(begun, LeaseLost)
        ended = world.drain(batch)
        assert ended.state is BatchState.CANCELLED
        assert ended.total == (2 if begun is None else 0)


def test_an_assembly_and_the_reap_of_its_lease_at_once_end_the_batch_once(world: World) -> None:
    for after, reap_first in itertools.product((None, 1, 2, 3), (True, False)):
        batch = world.batch(1)
        world.finish(world.claimed(world.worker()))
        found, lease = world.claim_batch(batch, "assemble")
        world.lapse(batch)

        def commit(tx: Transaction, found=found, lease=lease) -> None:
            assemble.commit(tx, found, lease, BatchState.COMPLETED, None, None)

        def reap(tx: Transaction, batch=batch) -> int:
            return dispatch.reap(tx, batch)

        pair = (reap, commit) if reap_first else (commit, reap)
        for result in interleave(world, *pair, after)[:2]:
            if isinstance(result, Exception) and not isinstance(result, LeaseLost):
                raise result
        assert world.drain(batch).state is BatchState.COMPLETED
