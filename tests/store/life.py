"""A life of batches: what tenants, keepers and io workers may do, as rules of a Hypothesis state machine.

The functions are the service's own, on a real Postgres; time is turned by hand. A model says what must come of each.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from store.meeting import outlook
from store.model import Held, Model, Person, Task
from store.world import CHAT, MODEL, World

from penstock.domain.api_errors import BadRequest, Conflict, LeaseLost, NotFound
from penstock.domain.work.batch import BatchState, LineError
from penstock.domain.work.lane import LANES, Lane
from penstock.domain.work.terms import Terms
from penstock.service.admin import models, sweep
from penstock.service.control import cancel
from penstock.service.core.ids import fresh
from penstock.service.intake import submit, upload
from penstock.service.lifecycle import dispatch, work
from penstock.service.planning import validate
from penstock.service.planning.scan import Scan
from penstock.service.results import assemble

OTHER = "other"
MOST_BATCHES = 5
THERE = "select from files where id = :id and (expires_at is null or expires_at > now())"
SWEPT = """
    select s.id from slices s join batches b on b.id = s.batch
    where not b.inline and b.state in ('completed', 'cancelled', 'expired', 'failed')
      and b.id not in (select batch from leftovers)"""

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
        self.swept: set[str] = set()
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
    @rule(lane=st.sampled_from(LANES), sizes=st.lists(st.integers(1, 3), min_size=1, max_size=3))
    def submit_and_plan(self, lane: Lane, sizes: list[int]) -> None:
        self.submit(lane)
        self.take_task("validate", self.batches[-1])
        self.end_validation(self.model.tasks[-1], sizes, 0)

    @precondition(lambda self: len(self.batches) < MOST_BATCHES)
    @rule(kind=st.sampled_from(["vote", "fallback"]), sizes=st.lists(st.integers(1, 3), min_size=1, max_size=2))
    def submit_to_an_ensemble(self, kind: str, sizes: list[int]) -> None:
        self.submit(Lane.STANDARD)
        self.take_task("validate", self.batches[-1])
        task = self.model.tasks[-1]
        self.run(self.world.begin_folds, task.found, task.lease, sizes, kind)
        self.model.lose(task)

    @precondition(lambda self: len(self.batches) < MOST_BATCHES)
    @rule(size=st.integers(1, 4))
    def submit_inline(self, size: int) -> None:
        self.batches.append(self.world.job(size))

    @precondition(lambda self: self.batches)
    @rule(which=pick)
    def submit_again_over_the_same_file(self, which: int) -> None:
        file = self.world.find(self.of(which)).input_file
        there = self.world.rows(THERE, id=file)
        terms = Terms(CHAT)
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

    @precondition(lambda self: self.batches)
    @rule(which=pick, pauses=st.booleans())
    def pause_or_resume(self, which: int, pauses: bool) -> None:
        batch = self.world.find(self.of(which))
        may = not batch.finish_as and batch.state in (BatchState.IN_PROGRESS, BatchState.PAUSED)
        with contextlib.nullcontext() if may else pytest.raises(Conflict):
            (self.world.pause if pauses else self.world.resume)(batch.id, batch.kind)
        if may:
            assert self.world.find(batch.id).state is (BatchState.PAUSED if pauses else BatchState.IN_PROGRESS)

    @precondition(lambda self: self.batches)
    @rule(which=pick, lane=st.none() | st.sampled_from(LANES), window=st.sampled_from([None, "1h", "48h"]))
    def move(self, which: int, lane: Lane | None, window: str | None) -> None:
        batch = self.world.find(self.of(which))
        may = not batch.finish_as and not batch.ended
        with contextlib.nullcontext() if may else pytest.raises(Conflict):
            self.world.move(batch.id, lane, window)
        if may and lane:
            assert self.world.find(batch.id).lane is lane

    # What keepers do, and what the clock does.

    @precondition(lambda self: self.batches)
    @rule(which=pick, rises=st.booleans())
    def promote(self, which: int, rises: bool) -> None:
        """It runs out of time, or has enough of it again."""
        self.run(dispatch.put, outlook(self.of(which)), rises, self.settings)

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
        self.lapse(self.any([held for held in self.model.held if held.current], which))

    def lapse(self, held: Held) -> None:
        """The lease is past its time."""
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

    @rule()
    def sweep(self) -> None:
        """Days pass, and what nobody needs any more goes."""
        self.world.sql("update leases set closed_at = closed_at - interval '2 days' where closed_at is not null")
        for duty in sweep.DUTIES:
            self.run(duty, self.settings.model_copy(update={"unfinished_blob_seconds": 0, "pieces_seconds": 0}))
        kept = {row.id for row in self.world.rows("select id from leases")}
        gone = {row.id for row in self.world.rows(SWEPT)}
        assert all(held.lease in kept for held in self.model.held if held.batch not in self.ended)
        self.model.forget(kept, gone)
        self.swept |= {
            row.id
            for row in self.world.rows(
                "select id from batches where not inline and id = any(:ended)"
                " and id not in (select batch from leftovers)",
                ended=list(self.ended),
            )
        }

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

    # Who comes and goes.

    @precondition(lambda self: len(self.model.workers) < 4)
    @rule(which=st.integers(0, 2), ready=st.booleans())
    def join(self, which: int, ready: bool) -> None:
        holder = self.world.worker(OTHER if which == 2 else MODEL, "ready" if ready else "starting")
        self.model.workers.append(Person(holder, self.model.now()))

    @rule(which=pick, state=st.sampled_from(["ready", "ready", "starting", "draining", "gone"]))
    def mark(self, which: int, state: str) -> None:
        self.run(work.mark, self.any(self.model.workers, which).holder, state, self.settings)

    # What io workers do.

    @precondition(lambda self: self.batches)
    @rule(which=pick, next=st.booleans())
    def take(self, which: int, next: bool) -> None:
        """Claim a validation or an assembly."""
        waiting = self.run(work.waiting_for_io)
        self.take_task(*(waiting if next and waiting else (("validate", "assemble")[which % 2], self.of(which))))

    def take_task(self, kind: str, batch: str) -> None:
        """Claim it if it is due and nobody has it."""
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
        self.end_validation(self.any_task("validate", which), sizes, how)

    def end_validation(self, task: Task, sizes: list[int], how: int) -> None:
        """Commit a validation: with errors, or a plan for this or that model."""
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
    def put_off(self, which: int) -> None:
        task = self.any(self.model.tasks, which)
        self.run(work.put_off, task.lease)
        self.model.lose(task)

    @precondition(lambda self: self.model.tasks)
    @rule(which=pick)
    def give_up(self, which: int) -> None:
        task = self.any(self.model.tasks, which)
        with self.lost_unless(task.current):
            self.run(work.give_up, task.batch, task.lease)
        self.model.lose(task)

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
