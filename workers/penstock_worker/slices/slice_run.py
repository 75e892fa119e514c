"""The run of one claim in a slice slot: read → try the suspects → ask → record → settle, or give back.

A claim is one slice, or many small jobs' slices, each under a lease of its own; they are asked, recorded and settled
together. What befalls one (a lost lease, a cancel, a line that breaks) is its own affair: the others go on.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Final, Self

import structlog

from penstock.domain.api_errors import LeaseLost, NoSpace, Unavailable
from penstock.domain.line_errors import CRASHED
from penstock.domain.work.slice import Claim
from penstock.domain.work.suspicion import trial
from penstock.failpoint import failpoint
from penstock.formats import input as lines
from penstock.formats import output, plan
from penstock.service.core.ids import blob_key
from penstock.service.ensembles import classifying
from penstock.service.lifecycle import work
from penstock_worker import line_metrics
from penstock_worker.admission.gate import Gate
from penstock_worker.engine.process.supervisor import EngineState
from penstock_worker.slices.held_slice import HeldSlice, Tally
from penstock_worker.slices.line_feed import LineFeed
from penstock_worker.slices.reuse import each, reuse
from penstock_worker.slices.run_context import RunContext

log = structlog.get_logger()

_GATHER_SECONDS: Final = 0.2
_GATHER_PART: Final = 0.1
"""An answered job waits for others, to be recorded with them in one transaction: a tenth of the time since their run
began, at least 0.2 s and at most `flush_seconds`. The last one doesn't wait."""


class SliceRun:
    """Claimed slices, from their lines to their ends in this worker. In `with`: `hold` is called once, then `run`."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._on_fed: Callable[[], object] = lambda: None
        self._holds = ExitStack()
        self._news = threading.Event()
        self._held: list[HeldSlice] = []
        self._ends: list[str] = []
        self._began = time.monotonic()
        self.tally = Tally()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._holds.close()

    def hold(self, claims: Sequence[Claim], asked_at: float) -> None:
        """Name claims that were first asked for at `asked_at` (by `beat.now`) in every beat from now on."""
        for claim in claims:
            hold = self._holds.enter_context(ExitStack())
            grip = hold.enter_context(self._context.beat.holding(claim.lease, asked_at, self._news))
            self._held.append(HeldSlice(claim, grip, hold))

    def run(self, on_fed: Callable[[], object]) -> str:
        """Bring what is held to its end; `on_fed` is called now and then while only the last answers are waited for.

        Says how they ended that were not settled whole.
        """
        self._on_fed, self._began = on_fed, time.monotonic()
        many = len(self._held) > 1
        try:
            self._run_held()
        except (Unavailable, NoSpace) as error:  # the process ends meanwhile: the leases will be reaped
            self._ends.append(f"left behind: {error.message}")
        except Exception as error:  # a bug of ours: each that is left is tried alone
            with suppress(Unavailable, NoSpace):
                for one in list(self._held):
                    self._break(one, error)
        finally:
            for one in self._held:
                one.cut_off()
        if many:
            return ", ".join(f"{times} {how}" for how, times in Counter(self._ends).items())
        return "; ".join(self._ends)

    def _run_held(self) -> None:
        try:
            for one in list(self._held):
                self._begin(one)
            while self._held:
                self._round()
        except LeaseLost:  # only one that came alone writes blobs or is tried, and finds it there
            self._lose(list(self._held))

    def _begin(self, one: HeldSlice) -> None:
        """Read its lines, end the convicted, try the suspects, and feed the others to the engine."""
        try:
            open_lines = {line.number: line for line in self._read(one)}
        except ValueError as error:
            self._break(one, error)
            return
        how = trial(list(open_lines), one.claim.suspects, one.claim.crashes)
        self._convict(one, [open_lines[number] for number in how.guilty])
        if how.groups:  # small jobs that came together have none
            self._try(one, [[open_lines[number] for number in group] for group in how.groups])
        if how.free and self._goes_on(one):
            free = [open_lines[number] for number in how.free]
            records, groups = reuse(one.claim, free, self._context.engine.answer_cache)
            one.unrecorded += records
            one.feed = LineFeed(self._context.engine, one.claim, groups, one.grip)
        one.more = False

    def _read(self, one: HeldSlice) -> list[lines.Line]:
        """The lines that nobody recorded yet; raises ValueError if the plan's bytes can't be read."""
        claim, data = one.claim, one.claim.inline
        if data is None:
            read = partial(self._context.blobs.range, claim.plan_key or "", claim.plan_offset, claim.plan_bytes)
            data = self._context.insist(read, one.grip)
        found = [
            lines.read(number, line)
            for number, line in plan.unframe(data)
            if number not in claim.recorded and (claim.picked is None or number in claim.picked)
        ]
        if (chosen := claim.chosen) is None:
            return found
        return [
            replace(line, url=chosen.endpoint(line.url), body=classifying.asked(chosen, line.url, line.body))
            for line in found
        ]

    def _convict(self, one: HeldSlice, guilty: Sequence[lines.Line]) -> None:
        """End the lines that took two engines down alone; counted once their ends are recorded."""
        for line in guilty:
            log.error("line_crashed", batch=one.claim.batch, line=line.number)
            one.unrecorded.append(output.ended(one.claim.batch, line.number, line.custom_id, CRASHED))
        while one in self._held and one.unrecorded:
            self._round()
        if guilty and one.tally.segments:
            batch = one.claim.batch
            self._context.insist(partial(self._context.db.run, work.count, "line_crashed", len(guilty), batch))

    def _try(self, one: HeldSlice, groups: Sequence[Sequence[lines.Line]]) -> None:
        """Ask the suspects with the engine to themselves, one group after the other, each recorded before the next."""
        with self._alone(one):
            for group in groups:
                if not self._goes_on(one):
                    return
                numbers = [line.number for line in group]
                self._context.insist(partial(self._context.db.run, work.note_trial, one.claim, numbers))
                failpoint("trial.noted")
                # Suspects are asked themselves, whatever became of their like.
                one.feed = LineFeed(self._context.engine, one.claim, each(group), one.grip, Gate(len(group)))
                while one in self._held and not (one.idle and not one.unrecorded):
                    self._round()

    @contextmanager
    def _alone(self, one: HeldSlice) -> Iterator[None]:
        """Nobody else's lines are in the engine meanwhile; ends early if this slice must end before its turn."""
        entered = threading.Event()
        turn = self._context.engine.loop.run(self._hold_alone(entered))
        try:
            while not entered.is_set() and one in self._held and not self._must_end(one):
                self._round()
            yield
        finally:
            turn.cancel()

    async def _hold_alone(self, entered: threading.Event) -> None:
        async with self._context.engine.gate.alone():
            entered.set()
            self._news.set()
            await asyncio.Event().wait()  # until it is cancelled

    def _goes_on(self, one: HeldSlice) -> bool:
        """Whether more of its lines may be fed to the engine."""
        ready = self._context.engine.supervisor.state is EngineState.READY
        return one in self._held and ready and not one.engine_gone and not self._must_end(one)

    def _must_end(self, one: HeldSlice) -> bool:
        return one.grip.closing is not None or self._context.beat.gives_back

    def _round(self) -> None:
        """Take and record what came back, let go of what is over, obey what the beat heard, and wait for news."""
        began = time.monotonic()
        self._collect()
        self._record()
        self._give_back()
        self._obey()
        if self._held:
            if all(one.fed for one in self._held):
                self._on_fed()
            self._wait(time.monotonic() - began)

    def _collect(self) -> None:
        for one in list(self._held):
            if error := one.collect():
                self._break(one, error)
        self._lose([one for one in self._held if one.grip.lost])

    def _record(self) -> None:
        """One transaction for all that came back; small jobs that are whole with it end in it.

        A batch's slice is settled once its last answer is safe: its end locks the batch, which others' flushes would
        wait for.
        """
        if answered := [one for one in self._held if one.grip.trusted and one.unrecorded]:
            failpoint("slice.flushing")
            self._commit(answered, [one for one in answered if one.whole and one.claim.inline is not None])
        over = [one for one in self._held if one.grip.trusted and one.over]
        if ending := [one for one in over if one.whole or one.grip.closing]:
            failpoint("slice.settling")
            self._commit([], ending)
            failpoint("slice.settled")

    def _commit(self, answered: Sequence[HeldSlice], ending: Sequence[HeldSlice]) -> None:
        """Record answers and ends, each of them refused if its lease is gone; repeated under the same numbers."""
        answers = [self._written(one) for one in answered]
        ends = [one.claim for one in ending]
        lost = self._context.insist(lambda: self._context.db.run(work.record, answers, ends))
        if answers:
            failpoint("segment.recorded")
        for one in answered:
            if one.claim.lease not in lost:
                one.tally, self.tally = one.tally.plus(one.unrecorded), self.tally.plus(one.unrecorded)
                self._context.meter.recorded(sum(r.usage.total_tokens for r in one.unrecorded if not r.reused))
                line_metrics.recorded(one.claim, one.unrecorded)
                one.unrecorded = []
        self._lose([one for one in {*answered, *ending} if one.claim.lease in lost])
        settled = [one for one in ending if one.claim.lease not in lost]
        self._ends += [f"closing as {one.grip.closing}" for one in settled if not one.whole]
        self._let_go(settled)

    def _written(self, one: HeldSlice) -> work.SliceAnswers:
        """Its answers as they are recorded; those of a batch are in a blob by then. Raises LeaseLost."""
        key = None if one.claim.inline is not None else blob_key(one.claim.tenant, "segments")
        gpu_microseconds = self._context.engine.gpu_microseconds(one.unrecorded)
        answers = work.SliceAnswers(one.claim, one.tally.segments + 1, one.unrecorded, key, gpu_microseconds)
        if key is not None:
            self._context.insist(lambda: self._context.db.run(work.intend, key))
            self._context.insist(lambda: self._context.blobs.put(key, answers.framed), one.grip)
            failpoint("segment.written")
        return answers

    def _give_back(self) -> None:
        """Let go of those that are finished and not whole: the engine died, or it or the process ends."""
        if over := [one for one in self._held if one.over and not one.whole and not one.grip.closing]:
            given = [(one.claim, one.in_flight) for one in over]
            self._context.insist(lambda: self._context.db.run(work.give_back, given))
            for one in over:
                died = f": the engine died with {len(one.in_flight)} of its lines" if one.engine_gone else ""
                self._ends.append("given back" + died)
            self._let_go(over)

    def _obey(self) -> None:
        """Slices of closing jobs, and all before engine or process end, ask no more; after a grace they are cut off."""
        for one in [one for one in self._held if self._must_end(one)]:
            if one.stop(self._context.settings.close_grace_seconds):
                one.cut_off()
                if one.finished or (one.idle and one.unrecorded):
                    # All ends, and nobody said that the answers are still wanted. A suspect that was cut off
                    # is not lost but given back: a reap would count the trial against it.
                    self._lose([one])

    def _wait(self, took: float) -> None:
        """Until an answer that came as the last round began, which `took` so long, must be recorded with the next."""
        most = self._context.settings.flush_seconds
        self._news.wait(max(most / 2, most - 2 * took))
        self._news.clear()
        if not self.tally.segments:
            failpoint("slice.asking")
        if len(self._held) > 1 and not self._context.beat.gives_back:
            part = _GATHER_PART * (time.monotonic() - self._began)
            time.sleep(min(max(_GATHER_SECONDS, part), self._context.settings.flush_seconds))

    def _break(self, one: HeldSlice, error: BaseException) -> None:
        """Its bytes can't be read, or it meets a bug of ours: counted, so that it ends."""
        log.error("slice_broken", batch=one.claim.batch, slice=one.claim.slice, exc_info=error)
        # Held until it is counted: a beat in between would release it as forgotten.
        self._context.insist(lambda: self._context.db.run(work.unreadable, one.claim))
        self._ends.append(f"it can't be worked on: {type(error).__name__}")
        self._let_go([one])

    def _lose(self, lost: Sequence[HeldSlice]) -> None:
        """Their answers are dropped, and counted: somebody else asks these lines again, or has."""
        if not lost:
            return
        self._let_go(lost)
        dropped = sum(len(one.unrecorded) for one in lost)
        self._ends += [f"the lease was lost; {len(one.unrecorded)} unrecorded answers are dropped" for one in lost]
        log.warning("leases_lost", leases=[one.claim.lease for one in lost], dropped=dropped)
        self._context.insist(lambda: self._context.db.run(work.lost, dropped, len(lost)))

    def _let_go(self, slices: Iterable[HeldSlice]) -> None:
        """They are this worker's no more; what is still in flight of them is aborted."""
        for one in slices:
            one.cut_off()
            one.hold.close()
            self._held.remove(one)
