"""Any order: whatever holders, keepers and tenants do one after the other, no invariant breaks, and everything ends.

A Hypothesis state machine (life.py) beside a model of which lease counts (model.py); here are the holders of slices,
and what is looked at after each step. PENSTOCK_EXAMPLES sets how many lives are drawn, PENSTOCK_SEED draws others.
"""

from __future__ import annotations

import os
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import get_state_machine_test, invariant, precondition, rule
from sqlalchemy import text
from store import as_folder, as_holder, invariants
from store.life import Life, part, pick, some
from store.model import Folding, Slice
from store.world import MODEL, World, records

from penstock.domain.accounts.account import accounts
from penstock.domain.ensembles.definition import read
from penstock.domain.work.batch import BatchState
from penstock.domain.work.lane import LANES, Lane
from penstock.service.core.transaction import Transaction
from penstock.service.lifecycle import dispatch, folds, work
from penstock.store.accounts.fair_turns import ACCOUNT
from penstock.store.batches import files
from penstock.store.work.folds import Absence

DUE = """
    select exists (
        select from slices s where s.batch = :batch and s.ensemble is not null and s.member is null
          and s.state = 'waiting' and not s.held
          and not exists (select from slices m where m.fold = s.id and m.state in ('queued', 'ready', 'running')))"""
NOBODY = read(as_folder.definition("fallback", MODEL, MODEL))
ENDED = ["completed", "cancelled", "expired", "failed"]


class Lives(Life):
    """What holders of slices do, and what always holds."""

    def best(self, model: str | None, lanes: list[Lane]) -> set[int]:
        """The most urgent ready slice of each account in the most urgent of these lanes that has any."""
        rows = self.world.rows(
            f"select id, {ACCOUNT} as account, lane_rank from slices s where state = 'ready' and model = :model"
            " and lane_rank = any(:ranks) order by lane_rank, deadline, id",
            model=model,
            ranks=[lane.rank for lane in lanes],
        )
        top = [row for row in rows if row.lane_rank == rows[0].lane_rank]
        return {next(row.id for row in top if row.account == account) for account in {row.account for row in top}}

    @rule(which=pick, most=st.sampled_from(LANES), again=st.booleans(), full=st.booleans())
    def claim(self, which: int, most: Lane, again: bool, full: bool = False) -> None:
        worker = self.any(self.model.workers, which)
        before = self.any(self.model.slices, which) if again and self.model.slices else None
        holder, nonce = (before.holder, before.nonce) if before else (worker.holder, uuid.uuid4())
        lanes = LANES[: most.rank + 1]
        passed = {most: frozenset(accounts("acme"))} if full else {}
        best = self.best(holder.model, [lane for lane in lanes if lane not in passed])
        # A repeated claim asks for as much as it did at first: its nonce says how much that was.
        claims = self.world.claim_some(holder, *lanes, nonce=nonce, full=passed, lines=4 if nonce.int & 1 else 1)
        if before is not None:
            known = {
                (held.lease, held.claim.slice) for held in self.model.slices if held.nonce == nonce and held.current
            }
            assert {(claim.lease, claim.slice) for claim in claims} == known
        else:
            assert claims[0].slice in best if claims else not best
            assert len(claims) <= 1 or (all(claim.inline for claim in claims) and sum(c.lines for c in claims) <= 4)
        for claim in claims:
            if before is None:
                assert all(claim.lease > other.lease for other in self.model.slices), "tokens only grow"
                held = Slice(claim.lease, holder, self.model.now(), nonce, claim.batch, claim=claim)
                self.model.slices.append(held)
            assert claim.recorded == self.model.recorded.get(claim.slice, {}).keys()
            assert claim.suspects == self.model.deaths(claim.slice)

    @precondition(lambda self: any(held.current for held in self.model.slices))
    @rule(which=pick)
    def change_hands(self, which: int) -> None:
        """A holder falls silent, another has its slice before it knows, and it writes what it has."""
        held = self.any([held for held in self.model.slices if held.current], which)
        self.lapse(held)
        self.reap(self.batches.index(held.batch))
        self.run(dispatch.feed_all, self.settings)
        others = [at for at, worker in enumerate(self.model.workers) if worker.holder.model == held.claim.model]
        self.claim(others[which % len(others)], Lane.FLEX, False)
        if held.left:
            self.flush(self.flushable().index(held), 0, False, "")

    @precondition(lambda self: any(held.left for held in self.model.slices))
    @rule(
        which=pick, bits=some, failed=st.booleans(), blob=st.sampled_from(["", "", "intended", "doomed", "unheard of"])
    )
    def flush(self, which: int, bits: int, failed: bool, blob: str) -> None:
        held = self.any(self.flushable(), which)
        lines = tuple(part(held.left, bits) or held.left)
        key = f"acme/segments/{uuid.uuid4().hex}" if blob else None
        if blob in ("intended", "doomed"):
            self.run(work.intend, key)
        if blob == "doomed":
            self.run(lambda tx: files.doom(tx.conn, [key]))
        seq, accepted = len(held.sent) + 1, held.current and blob in ("", "intended")
        with self.lost_unless(accepted):
            self.run(as_holder.flush, held.claim, seq, records(held.claim, *lines, failed=failed), key)
        if accepted:
            held.accepted.add(seq)
            self.model.record(held, lines, failed)
        if accepted or not blob:
            held.sent[seq] = (lines, key)

    @precondition(lambda self: any(held.sent for held in self.model.slices))
    @rule(which=pick)
    def flush_again(self, which: int) -> None:
        held = self.any([held for held in self.model.slices if held.sent], which)
        seq = 1 + which % len(held.sent)
        lines, key = held.sent[seq]
        with self.lost_unless(seq in held.accepted):
            self.run(as_holder.flush, held.claim, seq, records(held.claim, *lines), key)

    @precondition(lambda self: any(held.left for held in self.model.slices))
    @rule(which=pick, bits=some)
    def ask_on_trial(self, which: int, bits: int) -> None:
        held = self.any([held for held in self.model.slices if held.left], which)
        lines = part(held.left, bits) or held.left
        with self.lost_unless(held.current):
            self.run(work.note_trial, held.claim, lines)
        if held.current:
            self.model.note(held, lines)

    @precondition(lambda self: self.model.slices)
    @rule(which=pick, bits=some)
    def engine_dies(self, which: int, bits: int) -> None:
        held = self.any(self.model.slices, which)
        lines = part(held.left, bits)
        self.run(as_holder.crash, held.claim, lines)
        if held.current:
            self.model.charge(held.claim.slice, lines)
        self.model.lose(held)

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
            self.run(as_holder.settle, held.claim)
        if settles:
            held.settled, held.current = True, False

    @precondition(lambda self: self.model.slices)
    @rule(bits=some, part_of=some)
    def record(self, bits: int, part_of: int) -> None:
        """The answers of a group of small jobs: several slices in one transaction, each under its own lease."""
        held = list({one.claim.slice: one for one in part(self.model.slices, bits) if one.left}.values())
        sent = {one.lease: tuple(part(one.left, part_of) or one.left) for one in held}
        answers = [
            work.SliceAnswers(one.claim, len(one.sent) + 1, records(one.claim, *sent[one.lease])) for one in held
        ]
        whole = [one for one in held if one.current and len(sent[one.lease]) == len(one.left)]
        lost = self.run(work.record, answers, [one.claim for one in whole])
        for one in held:
            seq = len(one.sent) + 1
            one.sent[seq] = (sent[one.lease], None)
            assert (one.lease in lost) != one.current
            if one.current:
                one.accepted.add(seq)
                self.model.record(one, sent[one.lease], False)
        for one in whole:
            one.settled, one.current = True, False

    @precondition(lambda self: self.batches)
    @rule(which=pick, next=st.booleans())
    def take_fold(self, which: int, next: bool) -> None:
        """Claim a fold whose members are all settled or gone."""
        batch = (self.run(folds.waiting) if next else None) or self.of(which)
        due = self.world.one(DUE, batch=batch)
        one = self.run(as_folder.claim, self.world.keeper, batch, self.settings)
        assert (one is not None) == due
        if one:
            held = Folding(one.claim.lease, self.world.keeper, self.model.now(), uuid.uuid4(), batch, fold=one)
            self.model.folds.append(held)
            assert one.claim.recorded == self.model.recorded.get(one.claim.slice, {}).keys()

    @precondition(lambda self: self.model.folds)
    @rule(which=pick, bits=some, ends=st.booleans())
    def fold(self, which: int, bits: int, ends: bool) -> None:
        """Record some of what is decided, or all of it, and ask later members or settle."""
        held = self.any(self.model.folds, which)
        if held.asked is not None or held.settled:
            with self.lost_unless(True):  # its commit was not heard
                self.run(as_folder.end, held.fold, as_folder.Decided([], held.asked or {}), self.settings)
            return
        decided = self.run(as_folder.decide, held.fold)
        kept = decided.records if ends else part(decided.records, bits)
        if kept:
            held.seq += 1
            with self.lost_unless(held.current):
                self.run(as_folder.keep, held.fold, kept, held.seq)
            if held.current:
                for one in kept:
                    self.model.add(held.fold.claim.slice, (one.number,), one.failed)
        if ends:
            with self.lost_unless(held.current):
                self.run(as_folder.end, held.fold, decided, self.settings)
            if held.current:
                held.asked, held.settled, held.current = decided.picked, not decided.picked, False

    @precondition(lambda self: self.batches)
    @rule(which=pick)
    def pass_over(self, which: int) -> None:
        """Nobody serves its members for long."""
        self.run(folds.pass_over, Absence(self.of(which), MODEL, NOBODY, 1_000.0))

    def flushable(self) -> list[Slice]:
        """Leases under which something is left to send."""
        return [held for held in self.model.slices if held.left]

    def flush_all(self, held: Slice) -> None:
        """Record all that is left."""
        seq, lines = len(held.sent) + 1, tuple(held.left)
        self.world.flush(held.claim, seq, *lines)
        held.sent[seq] = (lines, None)
        held.accepted.add(seq)
        self.model.record(held, lines, False)

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

    # What always holds.

    @invariant()
    def everything_holds(self) -> None:
        recorded, current, ended, suspects = self.run(_look)
        assert recorded == self.model.recorded
        assert current == self.model.current()
        assert suspects == self.model.suspects
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
        found = self.world.drain(batch)
        if batch in self.swept:
            assert not before
            return
        after = {line: failed for slice, line, failed in self.lines(batch)}
        assert {line: after.get(line) for line in before} == before, "what was recorded is lost"
        assert found.completed == sum(not failed for failed in after.values())
        assert found.completed + found.failed == found.total
        assert len(after) == found.total or found.state is not BatchState.COMPLETED

    def lines(self, batch: str) -> list[tuple[int, int, bool]]:
        """Slice, number and failure of each recorded line of a batch; of an ensemble's those that are folded."""
        rows = self.world.rows(
            "select g.slice, line, line = any(g.failed_lines) as failed"
            " from segments g join slices s on s.id = g.slice, unnest(g.lines) as line"
            " where s.batch = :batch and s.fold is null",
            batch=batch,
        )
        return [(row.slice, row.line, row.failed) for row in rows]


def _look(tx: Transaction) -> tuple[dict[int, dict[int, bool]], set[int], dict[str, Any], dict[Any, Any]]:
    """The recorded lines of each slice and which of them failed, open leases, ended batches' rows, suspects."""
    invariants.check(tx.conn)
    recorded: dict[int, dict[int, bool]] = {}
    for row in tx.conn.execute(text("select slice, lines, failed_lines from segments")):
        recorded.setdefault(row.slice, {}).update({line: line in row.failed_lines for line in row.lines})
    current = {row.id for row in tx.conn.execute(text("select id from leases where closed_at is null"))}
    ended = tx.conn.execute(text("select * from batches where state = any(:ended)"), {"ended": ENDED})
    suspects = tx.conn.execute(text("select slice, line, deaths, trial from suspects"))
    charged = {(row.slice, row.line): (row.deaths, row.trial) for row in suspects}
    return recorded, current, {row.id: row for row in ended}, charged


@pytest.mark.timeout(3600)
def test_in_any_order_every_invariant_holds_and_every_batch_ends(world: World) -> None:
    drawn = os.environ.get("PENSTOCK_SEED")
    test = get_state_machine_test(
        lambda: Lives(world),
        settings=settings(
            max_examples=int(os.environ.get("PENSTOCK_EXAMPLES", "6")),
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
