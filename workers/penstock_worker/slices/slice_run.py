"""One slice in this worker: read → try the suspects → ask → flush → settle, or give back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import structlog

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import LeaseLost, Unreadable
from penstock.domain.line_errors import CRASHED
from penstock.domain.work.slice import Claim
from penstock.domain.work.suspicion import trial
from penstock.failpoint import failpoint
from penstock.formats import input as lines
from penstock.formats import output, plan
from penstock.formats.output import Record
from penstock.service.core.ids import blob_key
from penstock.service.core.transaction import Database
from penstock.service.lifecycle import work
from penstock.settings import Settings
from penstock_worker.admission.gate import Gate
from penstock_worker.budget.meter import Meter
from penstock_worker.engine.process.supervisor import EngineState
from penstock_worker.engine_context import EngineContext
from penstock_worker.runtime.beat import Beat, Grip
from penstock_worker.runtime.patience import insist
from penstock_worker.slices.line_feed import LineFeed
from penstock_worker.slices.reuse import Group, each, reuse

log = structlog.get_logger()
R = TypeVar("R")


@dataclass
class Tally:
    """What was recorded of one slice by this holder."""

    answered: int = 0
    failed: int = 0
    segments: int = 0

    def plus(self, records: Sequence[Record]) -> Tally:
        """With one more segment, of these records."""
        failed = sum(record.failed for record in records)
        return Tally(self.answered + len(records) - failed, self.failed + failed, self.segments + 1)


@dataclass(frozen=True)
class RunContext:
    """What every run of a worker works with."""

    db: Database
    blobs: Blobs
    engine: EngineContext
    beat: Beat
    settings: Settings
    meter: Meter = field(default_factory=Meter)
    """Told of the tokens of what is recorded."""


@dataclass
class SliceRun:
    """A claimed slice, from its lines to its end in this worker. `run` is called once."""

    context: RunContext
    claim: Claim
    grip: Grip
    tally: Tally = field(default_factory=Tally)
    unrecorded: list[Record] = field(default_factory=list)
    """Answers that are in no segment yet."""
    on_fed: Callable[[], object] | None = None
    """Called now and then while the slice only waits for its last answers."""
    _has_engine: bool = field(default=False, init=False)

    def run(self) -> str:
        """Ask and flush until the slice is done or must be given back; say how it ended unless it was settled whole.

        Raises LeaseLost, and Unreadable if the plan is.
        """
        open_lines = {line.number: line for line in self._read()}
        how = trial(list(open_lines), self.claim.suspects, self.claim.crashes)
        self._convict([open_lines[number] for number in how.guilty])
        died, in_flight = self._try([[open_lines[number] for number in group] for group in how.groups])
        if not died and not self._must_end:
            groups = self._reuse([open_lines[number] for number in how.free])
            died, in_flight = self._ask(groups, on_fed=self.on_fed)
        return self._close(died, in_flight)

    def _read(self) -> list[lines.Line]:
        """The lines that nobody recorded yet."""
        claim = self.claim
        data = claim.inline
        if data is None:
            data = self._insist(
                lambda: self.context.blobs.range(claim.plan_key or "", claim.plan_offset, claim.plan_bytes)
            )
        try:
            return [lines.read(number, line) for number, line in plan.unframe(data) if number not in claim.recorded]
        except ValueError as error:
            raise Unreadable(f"slice {claim.slice}: {error}") from error

    def _convict(self, guilty: Sequence[lines.Line]) -> None:
        """End the lines that took two engines down alone."""
        for line in guilty:
            log.error("line_crashed", batch=self.claim.batch, line=line.number)
            self.unrecorded.append(output.ended(self.claim.batch, line.number, line.custom_id, CRASHED))
        self._flush()
        if guilty:
            self._insist(lambda: self.context.db.run(work.count, "line_crashed", len(guilty)))

    def _try(self, groups: Sequence[Sequence[lines.Line]]) -> tuple[bool, list[int]]:
        """Ask the suspects with the engine to themselves, one group after the other, each recorded before the next.

        Says if the engine died, and which lines were in it.
        """
        if not groups:
            return False, []
        with self._alone():
            for group in groups:
                if self._must_end:
                    break
                if self.context.engine.supervisor.state is not EngineState.READY:
                    return True, []
                numbers = [line.number for line in group]
                self._insist(partial(self.context.db.run, work.note_trial, self.claim, numbers))
                failpoint("trial.noted")
                # Suspects are asked themselves, whatever became of their like.
                died, in_flight = self._ask(each(group), Gate(len(group)))
                if died:
                    return died, in_flight
        return False, []

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else's lines are in the engine meanwhile; ends early if this slice must end before its turn."""
        turn = self.context.engine.loop.run(self._hold_alone())
        try:
            while not self._has_engine and not self._must_end:
                self._wait()
            yield
        finally:
            turn.cancel()

    async def _hold_alone(self) -> None:
        async with self.context.engine.gate.alone():
            self._has_engine = True
            self.grip.news.set()
            await asyncio.Event().wait()  # until it is cancelled

    def _reuse(self, free: Sequence[lines.Line]) -> list[Group]:
        """Those whose answer is in the cache are recorded; the others are to be asked, equal ones together."""
        records, groups = reuse(self.claim, free, self.context.engine.answer_cache)
        self.unrecorded += records
        self._flush()
        return groups

    def _ask(
        self, groups: Sequence[Group], gate: Gate | None = None, on_fed: Callable[[], object] | None = None
    ) -> tuple[bool, list[int]]:
        """Ask lines and record their answers every second or so; say if the engine died, and which lines were in it."""
        if not groups:
            return False, []
        feed = LineFeed(self.context.engine, self.claim, groups, self.grip, gate)
        try:
            self._collect(feed, on_fed)
        finally:
            if not feed.done:
                feed.cancel()
            self.unrecorded += feed.collect()
        if feed.error:
            raise feed.error
        return feed.engine_gone, feed.in_flight

    def _collect(self, feed: LineFeed, on_fed: Callable[[], object] | None) -> None:
        """Flush until nothing is in flight; obey what the beat hears."""
        give_up_at: float | None = None
        while True:
            finished = feed.done
            self.unrecorded += feed.collect()
            if self.grip.lost:
                raise LeaseLost
            if self.grip.trusted:
                self._flush()
            if finished and not self.unrecorded:
                return
            if feed.fed and on_fed:
                on_fed()
            if self._must_end and give_up_at is None:
                feed.stop()
                give_up_at = time.monotonic() + self.context.settings.close_grace_seconds
            if give_up_at is not None and time.monotonic() > give_up_at:
                if finished:
                    raise LeaseLost  # the process ends, and nobody said that the answers are still wanted
                feed.cancel()
            self._wait()
            if not self.tally.segments:
                failpoint("slice.asking")

    def _wait(self) -> None:
        self.grip.news.wait(self.context.settings.flush_seconds)
        self.grip.news.clear()
        if self.grip.lost:
            raise LeaseLost

    @property
    def _must_end(self) -> bool:
        return self.grip.closing is not None or self.context.beat.draining

    def _flush(self) -> None:
        """Blob first, then one row, refused if the lease is gone; repeated under the same number until answered."""
        records, claim, db = self.unrecorded, self.claim, self.context.db
        if not records:
            return
        failpoint("slice.flushing")
        seq = self.tally.segments + 1
        gpu_microseconds = self.context.engine.gpu_microseconds(records)
        framed, key = work.frame(records), None
        if claim.inline is None:
            key = blob_key(claim.tenant, "segments")
            self._insist(lambda: db.run(work.intend, key))
            self._insist(lambda: self.context.blobs.put(key, framed))
            failpoint("segment.written")
        self._insist(lambda: db.run(work.flush, claim, seq, records, key, framed, gpu_microseconds))
        failpoint("segment.recorded")
        self.context.meter.recorded(sum(record.usage.total_tokens for record in records if not record.reused))
        self.tally = self.tally.plus(records)
        self.unrecorded = []

    def _close(self, died: bool, in_flight: list[int]) -> str:
        """Settle what is whole or closing, else give it back; say which, or nothing if it is whole."""
        claim, db = self.claim, self.context.db
        whole = self.tally.answered + self.tally.failed + len(claim.recorded) == claim.lines
        if whole or self.grip.closing:
            failpoint("slice.settling")
            self._insist(lambda: db.run(work.settle, claim, self.context.settings))
            failpoint("slice.settled")
            return "" if whole else f"closing as {self.grip.closing}"
        if died:
            self._insist(lambda: db.run(work.crash, claim, in_flight))
            return f"given back: the engine died with {len(in_flight)} of its lines"
        self._insist(lambda: db.run(work.release, claim.lease))
        return "given back"

    def _insist(self, call: Callable[[], R]) -> R:
        return insist(call, self.context.beat, self.context.settings.close_grace_seconds, self.grip)
