"""Hints and looks become claims, each in a slot of its own, and each claim is held to its end."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import structlog

from penstock.domain.work import hint
from penstock.domain.work.hint import Hint
from penstock.domain.work.holder import Holder
from penstock.domain.work.lane import LANES, Lane
from penstock.domain.work.slice import Claim
from penstock.failpoint import failpoint
from penstock.service.lifecycle import work
from penstock_worker.engine.process.supervisor import EngineState
from penstock_worker.runtime.beat import now
from penstock_worker.slices.run_context import RunContext
from penstock_worker.slices.slice_run import SliceRun
from penstock_worker.slices.slice_slots import SliceSlot, SliceSlots

log = structlog.get_logger()


class SliceConsumer:
    """Everything that a slice meets in this worker."""

    def __init__(self, context: RunContext, holder: Holder | None, say: Callable[[list[Hint]], None]) -> None:
        """`holder`: who claims, and of which queue; None until that is known (`serve`)."""
        self._context = context
        self._holder = holder
        self._say = say
        self.slice_slots = SliceSlots()

    def serve(self, holder: Holder | None) -> None:
        """Claim for this holder from now on, of its model's queue; None: claim nothing."""
        self._holder = holder

    @property
    def _is_ready(self) -> bool:
        return self._holder is not None and self._context.engine.supervisor.state is EngineState.READY

    def look(self) -> bool:
        """Run the best ready slice unasked, in the least urgent lane that has a slot; say if there was one."""
        for lane in reversed(LANES):
            if (how := self._run_best(lane)) is not None:
                return how != ""
        return False

    def one(self, lane: Lane) -> str:
        """Run the best ready slice of this lane or a more urgent one; a sentence for Flower says what happened."""
        how = self._run_best(lane)
        if how is not None:
            return how or "nothing ready"
        hindrance = self._hindrance()
        if not self._context.beat.draining:
            self.slice_slots.owe(lane)
            if not hindrance:
                self.say_owed()  # a slot that was given back just now did not know of this one
        return hindrance or f"no free slot for {lane}"

    def _hindrance(self) -> str:
        """Why this worker may claim nothing now; "" if it may."""
        beat = self._context.beat
        if beat.draining:
            return "the worker is ending"
        if not beat.takes_work:
            return "the worker is drained" if beat.drained else "the engine is about to be restarted"
        return "" if self._is_ready else "the engine is not ready"

    @contextmanager
    def _slot(self, lane: Lane) -> Iterator[SliceSlot | None]:
        """A slot of this lane, if one is free; what is owed is said once it is given back."""
        slot = None
        try:
            with self.slice_slots.slot(lane) as slot:
                yield slot
        finally:
            if slot:
                self.say_owed()

    def _run_best(self, lane: Lane) -> str | None:
        """Run what is claimed for a slot of this lane, and say how that went: "" if nothing is ready, None if it was
        not looked: no slot is free, or something hinders.

        The slot is taken when it is this one's turn to claim: those who wait for that hold none.
        """
        if self._hindrance() or not self.slice_slots.has_free(lane):  # not worth waiting for a turn
            return None
        with ExitStack() as stack:
            with self._context.beat.claims:
                holder = self._holder
                if holder is None or self._hindrance():
                    return None
                slot = stack.enter_context(self._slot(lane))
                if slot is None:
                    return None
                run = stack.enter_context(SliceRun(self._context))
                claims = self._claim(holder, lane, slot, run)
            if not claims:
                return ""
            if self._is_full(claims):  # nobody counted how many claims all the small ones take: one leads to the next
                self.slice_slots.owe(lane)
                self.say_owed()

            def rest() -> None:
                if slot.rest():
                    self.say_owed()

            return self._run(claims, run, rest)

    def _is_full(self, claims: Sequence[Claim]) -> bool:
        """Small slices that fill most of a claim: there may be more."""
        settings = self._context.settings
        lines, tokens = sum(claim.lines for claim in claims), sum(claim.tokens for claim in claims)
        return len(claims) > 1 and (2 * lines > settings.small_job_lines or 2 * tokens > settings.slice_tokens)

    def say_owed(self) -> None:
        """Say the hints again that found no slot or no engine before."""
        if self._holder and self._holder.model and (due := self.slice_slots.due()):
            self._say([hint.generate(self._holder.model, lane) for lane in due])

    def _claim(self, holder: Holder, lane: Lane, slot: SliceSlot, run: SliceRun) -> list[Claim]:
        """Claims, held by this run; one after the other, so that no account gets more than its slots."""
        context, lanes = self._context, LANES[: lane.rank + 1]
        full = {of: accounts for of, accounts in self.slice_slots.full().items() if of in lanes}
        nonce, asked_at, before = uuid.uuid4(), now(), self.slice_slots.ever_owed
        most = context.settings.small_job_lines
        claims = context.insist(lambda: context.db.run(work.claim, holder, lanes, nonce, context.settings, full, most))
        if claims:
            run.hold(claims, asked_at)
            slot.turn(claims[0].lane, *_accounts(claims))
        elif full:
            self.slice_slots.pass_over(lane, full)
        else:
            self.slice_slots.forgive(lane, before)
        return claims

    def _run(self, claims: Sequence[Claim], run: SliceRun, on_fed: Callable[[], object]) -> str:
        """Bring claims to their ends; one sentence for Flower and the log."""
        began = time.monotonic()
        failpoint("slice.claimed")
        how = run.run(on_fed)
        seconds, tally, first = time.monotonic() - began, run.tally, claims[0]
        ended = {"answered": tally.answered, "failed": tally.failed, "seconds": round(seconds, 3)}
        if len(claims) == 1:
            log.info("slice", batch=first.batch, slice=first.slice, lease=first.lease, **ended, how=how or "settled")
            what = f"{first.batch} · lines {first.first_line}–{first.last_line}"
        else:
            log.info("small_jobs", jobs=len(claims), lane=first.lane, **ended, how=how or "settled")
            what = f"{len(claims)} small jobs"
        counts = f"{tally.answered} answered" + (f", {tally.failed} failed" if tally.failed else "")
        return " · ".join(part for part in (what, counts, f"{seconds:.1f} s", how) if part)


def _accounts(claims: Sequence[Claim]) -> list[str]:
    return sorted({claim.account for claim in claims})
