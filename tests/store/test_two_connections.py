"""Every pair of moves at once, one stopped inside its transaction: no invariant breaks, and none deadlocks.

Sequential tests can't see these races. Without the lock in flush this file is red: the update of the counts at the
end of that statement locks the row too, so the tests that show it are those where the slice changes hands before it.
"""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass

import pytest
from sqlalchemy import text
from store.two import Use, held, interleave, until_done_or_blocked
from store.world import MODEL, World, records, remaining

from penstock.domain.batch import BatchState
from penstock.domain.errors import Conflict, LeaseLost
from penstock.domain.lane import LANES
from penstock.domain.slice import Claim
from penstock.service import assemble, cancel, dispatch, work
from penstock.service.transaction import Transaction
from penstock.service.work import Holder


def test_a_reap_and_a_new_claim_wait_for_a_flush_that_has_not_committed(world: World) -> None:
    batch = world.batch(3)
    old = world.claimed(world.worker())
    heir = world.worker()
    world.lapse(batch)

    def reap_and_claim() -> Claim | None:
        assert world.db.run(dispatch.reap, batch) == 1
        world.db.run(dispatch.feed, MODEL, world.settings)
        return world.claim(heir)

    with held(world, lambda tx: work.flush(tx, old, 1, records(old, 1, 2), None)) as (pool, flush):
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


@pytest.mark.parametrize("ender", ["reap", "release", "unreadable"])
def test_a_flush_waits_for_whoever_takes_its_slice_away_and_is_refused(world: World, ender: str) -> None:
    scene = _scene(world, whole=False)
    with held(world, MOVES[ender](world, scene)) as (pool, taking):
        flushing = pool.submit(world.flush, scene.claim, 7, 2)
        assert until_done_or_blocked(world, flushing)
        taking.go_on()
        assert isinstance(flushing.exception(30), LeaseLost)
    assert world.find(scene.batch).completed == 1


def test_the_same_flush_on_two_connections_counts_once(world: World) -> None:
    batch = world.batch(2)
    claim = world.claimed(world.worker())
    with held(world, lambda tx: work.flush(tx, claim, 1, records(claim, 1), None)) as (pool, first):
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

    for after in (None, 1):
        first, second, _ = interleave(world, claim_once(), claim_once(), after)
        assert first == second
    assert world.one("select count(*) from leases where kind = 'slice'") == 1


def test_two_last_settles_at_once_finalize_the_batch_once(world: World) -> None:
    batch = world.batch(1, 1)
    worker = world.worker()
    claims = [world.claimed(worker) for _ in range(2)]
    for claim in claims:
        world.flush(claim, 1, *remaining(claim))
    one, other = (lambda tx, c=claim: work.settle(tx, c, world.settings) for claim in claims)
    assert interleave(world, one, other, None)[:2] == (None, None)
    assert world.find(batch).state is BatchState.FINALIZING
    assert [hint.task for hint in world.said].count("penstock.assemble") <= 1
    world.drain(batch)


@dataclass
class Scene:
    """A batch with a running slice, a ready and a queued one, and workers that are at it."""

    batch: str
    claim: Claim
    holder: Holder
    other: Holder


def _scene(world: World, whole: bool) -> Scene:
    """Set it up; `whole` if the running slice has all its lines recorded."""
    batch = world.batch(2, 2, 2)
    holder = world.worker()
    claim = world.claimed(holder)
    other = Holder(uuid.uuid4(), "gpu", MODEL, "host", 2)
    world.db.run(work.register, other, "starting", 8)
    world.flush(claim, 1, 1)
    if whole:
        world.flush(claim, 2, 2)
    world.sql("update slices set state = 'queued' where state = 'ready' and batch = :b and first_line = 5", b=batch)
    assert world.states(batch) == ["running", "ready", "queued"]
    world.lapse(batch)
    world.overdue(batch)
    return Scene(batch, claim, holder, other)


MOVES = {
    "flush": lambda w, s: lambda tx: work.flush(tx, s.claim, 7, records(s.claim, 2), None),
    "reap": lambda w, s: lambda tx: dispatch.reap(tx, s.batch),
    "claim": lambda w, s: lambda tx: work.claim(tx, s.other, list(LANES), uuid.uuid4(), w.settings),
    "settle": lambda w, s: lambda tx: work.settle(tx, s.claim, w.settings),
    "release": lambda w, s: lambda tx: work.release(tx, s.claim.lease),
    "unreadable": lambda w, s: lambda tx: work.unreadable(tx, s.claim),
    "cancel": lambda w, s: lambda tx: cancel.cancel(tx, "acme", "batch", s.batch),
    "expire": lambda w, s: lambda tx: cancel.expire(tx, s.batch),
    "feed": lambda w, s: lambda tx: dispatch.feed(tx, MODEL, w.settings),
    "beat": lambda w, s: lambda tx: work.beat(tx, s.holder, [s.claim.lease], w.settings),
    "move_on": lambda w, s: lambda tx: dispatch.move_on(tx, s.batch),
}


# The rest of the moves take the same locks as one of these.
PAIRED = ("flush", "reap", "claim", "settle", "release", "cancel", "expire", "feed", "beat", "move_on")


@pytest.mark.parametrize("first", PAIRED)
def test_a_move_beside_each_other_keeps_every_invariant_wherever_it_is_stopped(world: World, first: str) -> None:
    for second in PAIRED:
        for after in itertools.chain([None], itertools.count(1)):
            try:
                statements = _both(world, first, second, after)
            except BaseException as error:
                error.add_note(f"{first} was stopped after {after or 'all'} of its statements, beside {second}")
                raise
            if after is not None and after >= statements:
                break


def _both(world: World, first: str, second: str, after: int | None) -> int:
    """Run the two on a new scene; check it, bring its batch to its end, and check again."""
    scene = _scene(world, whole="flush" not in (first, second))
    *results, statements = interleave(world, MOVES[first](world, scene), MOVES[second](world, scene), after)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, LeaseLost | Conflict):
            raise result
    world.check()
    ended = world.drain(scene.batch)
    assert ended.completed + ended.failed == ended.total == 6
    return statements


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
