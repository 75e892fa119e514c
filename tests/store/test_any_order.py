"""Any order: whatever holders, keepers and tenants do one after the other, no invariant breaks, and everything ends.

A Hypothesis state machine over the service's own functions on a real Postgres, beside a model of which lease counts.
Time is turned by hand. PENSTOCK_EXAMPLES sets how many lives are drawn, PENSTOCK_SEED draws others.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, get_state_machine_test, invariant, precondition, rule
from sqlalchemy import text
from store import invariants
from store.model import Model, Person, Slice, Task
from store.world import CHAT, MODEL, World

from penstock.domain.batch import BatchState, LineError
from penstock.domain.errors import BadRequest, Conflict, LeaseLost, NotFound
from penstock.domain.lane import LANES, Lane
from penstock.service import assemble, cancel, dispatch, models, submit, upload, validate, work
from penstock.service.ids import fresh
from penstock.service.scan import Scan
from penstock.service.transaction import Transaction

OTHER = "other"
MOST_BATCHES = 5
ENDED = [str(state) for state in BatchState if state in ("completed", "cancelled", "expired", "failed")]

THERE = "select from files where id = :id and (expires_at is null or expires_at > now())"

pick = st.integers(0, 1_000_000)
"""Chooses among what there is: `things[pick % len(things)]`."""
some = st.integers(0, 255)
"""Chooses a part of what there is, bit by bit."""


def part(things: list[Any], bits: int) -> list[Any]:
    """Those things whose bit is set."""
    return [thing for at, thing in enumerate(things) if bits >> (at % 8) & 1]


class Life(RuleBasedStateMachine):
    """Batches, holders, keepers and the clock."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.run = world.db.run
        self.settings = world.settings
        self.model = Model()
        self.batches: list[str] = []
        self.ended: dict[str, Any] = {}
        self.finishing: dict[str, str] = {}
        world.clear()
        self.run(models.add, OTHER)
        self.model.helpers = [Person(world.keeper, self.model.now())]
        self.join(0, True)

    @contextlib.contextmanager
    def lost_unless(self, expected: bool) -> Iterator[None]:
        """What happens inside succeeds as the model expects, or is told that its lease is lost."""
        try:
            yield
        except LeaseLost:
            assert not expected, "refused, and the lease is current"
            return
        assert expected, "accepted, and the lease is not current"

    # What tenants do.

    @precondition(lambda self: len(self.batches) < MOST_BATCHES)
    @rule(lane=st.sampled_from(LANES))
    def submit(self, lane: Lane) -> None:
        self.batches.append(self.world.validating(lane=lane))

    @precondition(lambda self: len(self.batches) < MOST_BATCHES)
    @rule(size=st.integers(1, 4))
    def submit_inline(self, size: int) -> None:
        self.batches.append(self.world.job(size))

    @precondition(lambda self: self.batches)
    @rule(which=pick)
    def submit_again_over_the_same_file(self, which: int) -> None:
        file = self.world.find(self.of(which)).input_file
        there = self.world.rows(THERE, id=file)
        terms = submit.Terms(CHAT)
        if file and there and len(self.batches) < MOST_BATCHES:
            self.batches.append(self.run(submit.create_batch, "acme", file, terms, None, self.settings).id)
        elif not there:
            with pytest.raises(BadRequest):
                self.run(submit.create_batch, "acme", file or "file-x", terms, None, self.settings)

    @precondition(lambda self: self.batches)
    @rule(which=pick, expires=st.booleans())
    def delete_or_expire_a_file(self, which: int, expires: bool) -> None:
        file = self.world.find(self.of(which)).input_file
        if expires:
            self.world.sql("update files set expires_at = now() - interval '1 s' where id = :id", id=file)
            return
        there = self.world.rows(THERE, id=file)
        used = self.world.rows("select from batches where input_file = :id and state = 'validating'", id=file)
        with contextlib.nullcontext() if there and not used else pytest.raises(Conflict if there else NotFound):
            self.run(upload._delete, "acme", file or "file-x")

    @precondition(lambda self: self.batches)
    @rule(which=pick)
    def cancel(self, which: int) -> None:
        batch = self.world.find(self.of(which))
        may = batch.finish_as in (None, BatchState.CANCELLED)
        with contextlib.nullcontext() if may else pytest.raises(Conflict):
            self.world.cancel(batch.id, batch.kind)
        self.closed(batch.id)

    # What keepers do, and what the clock does.

    @precondition(lambda self: self.batches)
    @rule(which=pick, turned=st.booleans())
    def expire(self, which: int, turned: bool) -> None:
        batch = self.world.find(self.of(which))
        if turned and not batch.finish_as:
            self.world.overdue(batch.id)
        due = not batch.finish_as and self.world.one("select deadline < now() from batches where id = :id", id=batch.id)
        assert (batch.id in self.run(dispatch.overdue)) == due
        assert self.run(cancel.expire, batch.id) == due
        self.closed(batch.id)

    @precondition(lambda self: self.model.current())
    @rule(which=pick)
    def a_holder_falls_silent(self, which: int) -> None:
        held = self.any([held for held in self.model.held if held.current], which)
        self.world.sql("update leases set expires_at = now() - interval '1 s' where id = :id", id=held.lease)
        held.lapsed = True

    @precondition(lambda self: self.batches)
    @rule(which=pick)
    def reap(self, which: int) -> None:
        batch = self.of(which)
        silent = [held for held in self.model.held if held.batch == batch and held.current and held.lapsed]
        assert (batch in self.run(dispatch.silent_batches)) == bool(silent)
        assert self.run(dispatch.reap, batch) == len(silent)
        self.model.reap(silent)

    @rule(what=st.integers(0, 2), which=pick)
    def tick(self, what: int, which: int) -> None:
        if what == 0:
            self.run(dispatch.feed_all, self.settings)
        elif what == 1:
            self.run(dispatch.hint_again, self.settings)
        else:
            for batch in self.run(dispatch.stuck):
                self.run(dispatch.move_on, batch)
            if self.batches:
                self.run(dispatch.move_on, self.of(which))

    # What workers do.

    @precondition(lambda self: len(self.model.workers) < 4)
    @rule(which=st.integers(0, 2), ready=st.booleans())
    def join(self, which: int, ready: bool) -> None:
        holder = self.world.worker(OTHER if which == 2 else MODEL, "ready" if ready else "starting")
        self.model.workers.append(Person(holder, self.model.now()))

    @rule(which=pick, state=st.sampled_from(["ready", "ready", "starting", "draining", "gone"]))
    def mark(self, which: int, state: str) -> None:
        self.run(work.mark, self.any(self.model.workers, which).holder, state, self.settings)

    @rule(which=pick, most=st.sampled_from(LANES), again=st.booleans())
    def claim(self, which: int, most: Lane, again: bool) -> None:
        worker = self.any(self.model.workers, which)
        before = self.any(self.model.slices, which) if again and self.model.slices else None
        holder, nonce = (before.holder, before.nonce) if before else (worker.holder, uuid.uuid4())
        lanes = LANES[: most.rank + 1]
        ready = self.world.rows(
            "select id from slices where state = 'ready' and model = :model and lane = any(:lanes)"
            " order by lane_rank, deadline, id limit 1",
            model=holder.model,
            lanes=[str(lane) for lane in lanes],
        )
        claim = self.world.claim(holder, *lanes, nonce=nonce)
        if before is not None:
            assert (claim is not None) == before.current
            if claim is not None:
                assert (claim.lease, claim.slice) == (before.lease, before.claim.slice)
        else:
            assert [claim.slice] == [row.id for row in ready] if claim else not ready
        if claim is not None and before is None:
            assert all(claim.lease > other.lease for other in self.model.slices), "tokens only grow"
            held = Slice(claim.lease, holder, self.model.now(), nonce, claim.batch, claim=claim)
            self.model.slices.append(held)
        if claim is not None:
            assert claim.recorded == self.model.recorded.get(claim.slice, {}).keys()

    @precondition(lambda self: any(held.left for held in self.model.slices))
    @rule(which=pick, bits=some, failed=st.booleans())
    def flush(self, which: int, bits: int, failed: bool) -> None:
        held = self.any([held for held in self.model.slices if held.left], which)
        lines = tuple(part(held.left, bits) or held.left)
        seq = len(held.sent) + 1
        held.sent[seq] = lines
        with self.lost_unless(held.current):
            self.world.flush(held.claim, seq, *lines, failed=failed)
        if held.current:
            held.accepted.add(seq)
            self.model.record(held, lines, failed)

    @precondition(lambda self: any(held.sent for held in self.model.slices))
    @rule(which=pick)
    def flush_again(self, which: int) -> None:
        held = self.any([held for held in self.model.slices if held.sent], which)
        seq = 1 + which % len(held.sent)
        with self.lost_unless(seq in held.accepted):
            self.world.flush(held.claim, seq, *held.sent[seq])

    @precondition(lambda self: self.model.slices)
    @rule(which=pick, finishing=st.booleans())
    def settle(self, which: int, finishing: bool) -> None:
        held = self.any(self.model.slices, which)
        if finishing and held.current and held.left:
            self.flush_all(held)
        whole = len(self.model.recorded.get(held.claim.slice, {})) == held.claim.lines
        closing = self.world.find(held.batch).finish_as is not None
        settles = held.current and (whole or closing)
        with self.lost_unless(settles or held.settled):
            self.run(work.settle, held.claim, self.settings)
        if settles:
            held.settled, held.current = True, False

    def flush_all(self, held: Slice) -> None:
        """Record all that is left."""
        seq = len(held.sent) + 1
        held.sent[seq] = tuple(held.left)
        self.world.flush(held.claim, seq, *held.sent[seq])
        held.accepted.add(seq)
        self.model.record(held, held.sent[seq], False)

    @precondition(lambda self: self.model.held)
    @rule(which=pick, how=st.sampled_from(["released", "forgotten"]))
    def release(self, which: int, how: str) -> None:
        held = self.any(self.model.held, which)
        self.run(work.release, held.lease, how)
        self.model.lose(held)

    @precondition(lambda self: self.model.slices)
    @rule(which=pick)
    def unreadable(self, which: int) -> None:
        held = self.any(self.model.slices, which)
        self.run(work.unreadable, held.claim)
        self.model.lose(held)
        self.closed(held.batch)

    @rule(which=pick, bits=some, foreign=st.booleans())
    def beat(self, which: int, bits: int, foreign: bool) -> None:
        person = self.any([*self.model.workers, *self.model.helpers], which)
        mine = [held for held in self.model.held if held.holder is person.holder]
        named = part(mine, bits)
        if foreign:
            named += [held for held in self.model.held if held.holder is not person.holder][:2]
        heard = self.run(work.beat, person.holder, [held.lease for held in named], self.settings)
        kept = [held for held in named if held.current and held.holder is person.holder]
        assert heard.lost == {held.lease for held in named} - {held.lease for held in kept}
        closing = {held.lease: self.world.find(held.batch).finish_as for held in kept}
        assert heard.closing == {lease: how for lease, how in closing.items() if how}
        unnamed = [held for held in mine if held not in named and held.current]
        assert set(heard.forgotten) == {held.lease for held in unnamed if held.opened < person.beaten}
        person.beaten = self.model.now()
        for held in kept:
            held.lapsed = False
        for held in unnamed:
            if held.lease in heard.forgotten:
                self.run(work.release, held.lease, "forgotten")
                self.model.lose(held)

    # What io workers do.

    @precondition(lambda self: self.batches)
    @rule(which=pick, next=st.booleans())
    def take(self, which: int, next: bool) -> None:
        """Claim a validation or an assembly."""
        waiting = self.run(work.waiting_for_io)
        kind, batch = waiting if next and waiting else (("validate", "assemble")[which % 2], self.of(which))
        now = self.world.find(batch)
        due = now.state == ("validating" if kind == "validate" else "finalizing")
        free = due and not any(task.current and task.batch == batch for task in self.model.tasks)
        nonce = uuid.uuid4()
        taken = self.run(work.claim_batch, self.world.keeper, batch, kind, nonce, self.settings)
        assert (taken is not None) == free
        if taken:
            lease = taken[1].lease
            self.model.tasks.append(
                Task(lease, self.world.keeper, self.model.now(), nonce, batch, found=taken[0], kind=kind)
            )

    @precondition(lambda self: any(task.kind == "validate" for task in self.model.tasks))
    @rule(which=pick, sizes=st.lists(st.integers(1, 3), min_size=1, max_size=3), how=st.integers(0, 5))
    def begin(self, which: int, sizes: list[int], how: int) -> None:
        task = self.any_task("validate", which)
        with self.lost_unless(task.current):
            if how == 5:
                found = Scan(errors=[LineError("invalid_request", "no", None, 1)], error_count=1)
                self.run(validate.refuse, task.batch, task.lease, found)
            else:
                model = OTHER if how == 4 else MODEL
                self.run(self.world.begin, task.found, task.lease, sizes, model)
        self.model.lose(task)

    @precondition(lambda self: any(task.kind == "assemble" for task in self.model.tasks))
    @rule(which=pick, files=st.booleans())
    def end(self, which: int, files: bool) -> None:
        task = self.any_task("assemble", which)
        how = task.found.finish_as or BatchState.COMPLETED
        written = None
        if files:
            key = f"acme/files/{uuid.uuid4().hex}"
            self.run(work.intend, key)
            written = assemble.Written(fresh("file-"), key, "out.jsonl", 1, bytes(32), 1)
        with self.lost_unless(task.current):
            self.run(assemble.commit, task.found, task.lease, how, written, None)
        if written:
            there = self.world.rows("select from files where id = :id", id=written.id)
            assert bool(there) == task.current
        self.model.lose(task)

    @precondition(lambda self: self.model.tasks)
    @rule(which=pick)
    def give_up(self, which: int) -> None:
        task = self.any(self.model.tasks, which)
        with self.lost_unless(task.current):
            self.run(work.give_up, task.batch, task.lease)
        self.model.lose(task)

    # What always holds.

    @invariant()
    def everything_holds(self) -> None:
        recorded, current, ended = self.run(_look)
        assert recorded == self.model.recorded
        assert current == self.model.current()
        assert {id: ended.get(id) for id in self.ended} == self.ended, "an ended batch changed"
        self.ended = ended

    def teardown(self) -> None:
        self.everything_holds()
        for batch in self.batches:
            self.drain(batch)
        ended = self.run(_look)[2]
        assert ended.keys() == set(self.batches)
        assert {id: ended[id] for id in self.ended} == self.ended

    def drain(self, batch: str) -> None:
        """It ends, with every line once: those that were recorded as they were recorded, the others by their end."""
        before = {line: failed for slice, line, failed in self.lines(batch)}
        self.run(models.add, OTHER)
        found = self.world.drain(batch)
        after = {line: failed for slice, line, failed in self.lines(batch)}
        assert {line: after.get(line) for line in before} == before, "what was recorded is lost"
        assert found.completed == sum(not failed for failed in after.values())
        assert found.completed + found.failed == found.total
        assert len(after) == found.total or found.state is not BatchState.COMPLETED

    def lines(self, batch: str) -> list[tuple[int, int, bool]]:
        """Slice, number and failure of each recorded line of a batch."""
        rows = self.world.rows(
            "select g.slice, line, line = any(g.failed_lines) as failed"
            " from segments g join slices s on s.id = g.slice, unnest(g.lines) as line where s.batch = :batch",
            batch=batch,
        )
        return [(row.slice, row.line, row.failed) for row in rows]

    # Choices.

    def any(self, things: list[Any], which: int) -> Any:
        """One of these."""
        return things[which % len(things)]

    def of(self, which: int) -> str:
        """One of the batches."""
        return self.batches[which % len(self.batches)]

    def any_task(self, kind: str, which: int) -> Task:
        """One of the validations or assemblies."""
        return self.any([task for task in self.model.tasks if task.kind == kind], which)

    def closed(self, batch: str) -> None:
        """A batch that closes takes its validation with it."""
        if self.world.find(batch).finish_as is not None:
            for task in self.model.tasks:
                if task.batch == batch and task.kind == "validate":
                    self.model.lose(task)


def _look(tx: Transaction) -> tuple[dict[int, dict[int, bool]], set[int], dict[str, Any]]:
    """The recorded lines of each slice and which of them failed, the open leases, and the ended batches' rows."""
    invariants.check(tx.conn)
    recorded: dict[int, dict[int, bool]] = {}
    for row in tx.conn.execute(text("select slice, lines, failed_lines from segments")):
        recorded.setdefault(row.slice, {}).update({line: line in row.failed_lines for line in row.lines})
    current = {row.id for row in tx.conn.execute(text("select id from leases where closed_at is null"))}
    ended = tx.conn.execute(text("select * from batches where state = any(:ended)"), {"ended": ENDED})
    return recorded, current, {row.id: row for row in ended}


@pytest.mark.timeout(3600)
def test_in_any_order_every_invariant_holds_and_every_batch_ends(world: World) -> None:
    drawn = os.environ.get("PENSTOCK_SEED")
    test = get_state_machine_test(
        lambda: Life(world),
        settings=settings(
            max_examples=int(os.environ.get("PENSTOCK_EXAMPLES", "30")),
            stateful_step_count=40,
            deadline=None,
            derandomize=drawn is None,
            database=None,
            print_blob=False,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
    (test if drawn is None else seed(int(drawn))(test))()
