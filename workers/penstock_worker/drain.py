"""Draining: one slice's life in a worker: claim → read → ask → flush → settle, or give back."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog

from penstock.blobs.store import Blobs
from penstock.domain import hint
from penstock.domain.errors import LeaseLost, NoSpace, Unavailable, Unreadable
from penstock.domain.hint import Hint
from penstock.domain.lane import LANES, Lane
from penstock.domain.slice import Claim
from penstock.failpoint import failpoint
from penstock.formats import input as lines
from penstock.formats import plan
from penstock.formats.output import Record
from penstock.service import work
from penstock.service.ids import blob_key
from penstock.service.transaction import Database
from penstock.settings import Settings
from penstock_worker.asking import Asking, Engine
from penstock_worker.beat import Beat, Grip
from penstock_worker.engine.supervisor import EngineState
from penstock_worker.hands import Hands

log = structlog.get_logger()
R = TypeVar("R")

_INSIST_SECONDS: Final = 0.5
_READ_AGAIN_SECONDS: Final = (0.5, 2.0, 5.0)


@dataclass
class Tally:
    """What was recorded of one slice by this holder."""

    answered: int = 0
    failed: int = 0
    segments: int = 0


class Drain:
    """Everything that a slice meets in this worker."""

    def __init__(
        self,
        db: Database,
        blobs: Blobs,
        engine: Engine,
        beat: Beat,
        holder: work.Holder,
        settings: Settings,
        say: Callable[[list[Hint]], None],
    ) -> None:
        self._db = db
        self._blobs = blobs
        self._engine = engine
        self._beat = beat
        self._holder = holder
        self._settings = settings
        self._say = say
        self.hands = Hands()

    def look(self) -> bool:
        """Run the best ready slice unasked, in the least urgent lane that has a hand; say if there was one."""
        if self._beat.draining or self._engine.supervisor.state is not EngineState.READY:
            return False
        lane = next((lane for lane in reversed(LANES) if self.hands.take(lane)), None)
        return lane is not None and self._with_hand(lane) is not None

    def one(self, lane: Lane) -> str:
        """Run the best ready slice of this lane or a more urgent one; a sentence for Flower says what happened."""
        if self._beat.draining:
            return "the worker is ending"
        if self._engine.supervisor.state is not EngineState.READY:
            self.hands.owe(lane)
            return "the engine is not ready"
        if not self.hands.take(lane):
            self.hands.owe(lane)
            return f"no free hand for {lane}"
        return self._with_hand(lane) or "nothing ready"

    def _with_hand(self, lane: Lane) -> str | None:
        """Fill a hand that was taken for a lane, and give it back; None if nothing is ready."""
        try:
            claim = self._claim(lane)
            if claim is None:
                return None
            self.hands.turn(lane, claim.lane)
            lane = claim.lane
            return self._run(claim)
        finally:
            self.hands.give(lane)
            self.say_owed()

    def say_owed(self) -> None:
        """Say the hints again that found no hand or no engine before."""
        if self._holder.model and (due := self.hands.due()):
            self._say([hint.generate(self._holder.model, lane) for lane in due])

    def _claim(self, lane: Lane) -> Claim | None:
        nonce = uuid.uuid4()
        lanes = list(LANES[: lane.rank + 1])
        return self._insist(lambda: self._db.run(work.claim, self._holder, lanes, nonce, self._settings))

    def _run(self, claim: Claim) -> str:
        began, tally = time.monotonic(), Tally()
        failpoint("slice.claimed")
        with self._beat.holding(claim.lease) as grip:
            try:
                how = self._work(claim, grip, tally)
            except LeaseLost:
                how = "the lease was lost; its unrecorded answers are dropped"
            except Exception as error:  # bytes that can't be read, or a bug of ours: counted, so that it ends
                log.exception("slice_broken", batch=claim.batch, slice=claim.slice)
                self._insist(lambda: self._db.run(work.unreadable, claim))
                how = f"it can't be worked on: {type(error).__name__}"
        seconds = time.monotonic() - began
        counts = f"{tally.answered} answered" + (f", {tally.failed} failed" if tally.failed else "")
        told = [
            claim.batch,
            f"lines {claim.first_line}–{claim.last_line}",
            counts,
            f"{seconds:.1f} s",
            *([how] if how else []),
        ]
        log.info("slice", batch=claim.batch, slice=claim.slice, lease=claim.lease, answered=tally.answered,
                 failed=tally.failed, seconds=round(seconds, 3), how=how or "settled")  # fmt: skip
        return " · ".join(told)

    def _work(self, claim: Claim, grip: Grip, tally: Tally) -> str:
        """Ask and flush until the slice is done or must be given back; say how it ended unless it was settled whole."""
        asking = Asking(self._engine, claim.batch, claim.lane, self._read(claim), grip.news)
        try:
            how = self._collect(claim, grip, asking, tally)
        finally:
            if not asking.done:
                asking.cancel()
        if how == "given back":
            self._insist(lambda: self._db.run(work.release, claim.lease))
        else:
            failpoint("slice.settling")
            self._insist(lambda: self._db.run(work.settle, claim, self._settings))
            failpoint("slice.settled")
        return how

    def _read(self, claim: Claim) -> list[lines.Line]:
        """The lines that nobody recorded yet."""
        data = claim.inline if claim.inline is not None else self._fetch(claim)
        try:
            return [lines.read(number, line) for number, line in plan.unframe(data) if number not in claim.recorded]
        except ValueError as error:
            raise Unreadable(f"slice {claim.slice}: {error}") from error

    def _fetch(self, claim: Claim) -> bytes:
        """The slice's range of the plan copy; a blob store that is away for some seconds costs only these."""
        for pause in (*_READ_AGAIN_SECONDS, None):
            try:
                return self._blobs.range(claim.plan_key or "", claim.plan_offset, claim.plan_bytes)
            except Unreadable:
                if pause is None:
                    raise
                threading.Event().wait(pause)
        raise AssertionError("the last try returns or raises")

    def _collect(self, claim: Claim, grip: Grip, asking: Asking, tally: Tally) -> str:
        """Flush every second or so until nothing is in flight; obey what the beat hears."""
        give_up_at: float | None = None
        while True:
            finished = asking.done
            self._flush(claim, asking.collect(), grip, tally)
            if grip.lost:
                raise LeaseLost
            if finished:
                break
            if (grip.closing or self._beat.draining) and give_up_at is None:
                asking.stop()
                give_up_at = time.monotonic() + self._settings.close_grace_seconds
            if give_up_at is not None and time.monotonic() > give_up_at:
                asking.cancel()
            grip.news.wait(self._settings.flush_seconds)
            grip.news.clear()
            if not tally.segments:
                failpoint("slice.asking")
        if asking.error:
            raise asking.error
        if tally.answered + tally.failed + len(claim.recorded) == claim.lines:
            return ""
        return f"closing as {grip.closing}" if grip.closing else "given back"

    def _flush(self, claim: Claim, records: list[Record], grip: Grip, tally: Tally) -> None:
        """Blob first, then one row, refused if the lease is gone; repeated under the same number until answered."""
        if not records:
            return
        failpoint("slice.flushing")
        seq = tally.segments + 1
        framed, key = work.frame(records), None
        if claim.inline is None:
            key = blob_key(claim.tenant, "segments")
            self._insist(lambda: self._db.run(work.intend, key), grip)
            self._insist(lambda: self._blobs.put(key, framed), grip)
            failpoint("segment.written")
        self._insist(lambda: self._db.run(work.flush, claim, seq, records, key, framed), grip)
        failpoint("segment.recorded")
        tally.segments = seq
        failed = sum(record.failed for record in records)
        tally.failed += failed
        tally.answered += len(records) - failed

    def _insist(self, call: Callable[[], R], grip: Grip | None = None) -> R:
        """Repeat the same call under the same key while the database is away or a disk full; it may have happened."""
        pause, waited_seconds = threading.Event(), 0.0
        while True:
            try:
                return call()
            except (Unavailable, NoSpace) as error:
                log.warning("waiting", error=error.message)
                if grip is not None and grip.lost:
                    raise LeaseLost from error
                if self._beat.draining and waited_seconds > self._settings.close_grace_seconds:
                    raise  # the process must end; the lease will be reaped
                pause.wait(_INSIST_SECONDS)
                waited_seconds += _INSIST_SECONDS
