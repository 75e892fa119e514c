"""Small jobs in one slot, each under a lease of its own; asked, recorded and settled together.

What befalls one member (a lost lease, a cancel, a line that breaks) is its own affair: the others go on. Members have
no suspects; those in flight at an engine's death are given back as suspects, and claimed alone from then on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import structlog

from penstock.domain.work.slice import Claim
from penstock.failpoint import failpoint
from penstock.formats import input as lines
from penstock.formats import plan
from penstock.formats.output import Record
from penstock.service.lifecycle import work
from penstock_worker.runtime.beat import Grip
from penstock_worker.runtime.patience import insist
from penstock_worker.slices.line_feed import LineFeed
from penstock_worker.slices.reuse import reuse
from penstock_worker.slices.slice_run import RunContext, Tally

log = structlog.get_logger()
R = TypeVar("R")

_GATHER_SECONDS: Final = 0.2
_GATHER_PART: Final = 0.1
"""An answered job waits for others, to be recorded with them in one transaction: a tenth of the time since their bundle
began, at least 0.2 s and at most `flush_seconds`. The last ones don't wait."""


@dataclass(eq=False)
class Member:
    """One small slice of a group of small jobs."""

    claim: Claim
    grip: Grip
    feed: LineFeed
    tally: Tally = field(default_factory=Tally)
    unrecorded: list[Record] = field(default_factory=list)
    finished: bool = False
    give_up_at: float | None = None

    @property
    def whole(self) -> bool:
        """Every line is recorded, or about to be."""
        there = self.tally.answered + self.tally.failed + len(self.unrecorded) + len(self.claim.recorded)
        return there == self.claim.lines


class SmallJobsRun:
    """Claimed small slices, from their lines to their ends in this worker. `run` is called once.

    Their grips share `news`.
    """

    def __init__(self, context: RunContext, news: threading.Event, on_fed: Callable[[], object]) -> None:
        self._context = context
        self._news = news
        self._on_fed = on_fed
        self._held: list[tuple[Claim, Grip]] = []
        self._members: list[Member] = []
        self._began = time.monotonic()
        self.let_go: Callable[[Claim], None] = lambda claim: None
        """Told of each member whose lease this worker holds no more."""
        self.tally = Tally()

    def hold(self, claim: Claim, grip: Grip) -> None:
        """One more; all before `run`."""
        self._held.append((claim, grip))

    @property
    def left(self) -> list[Claim]:
        """Those that are still in hand."""
        return [member.claim for member in self._members]

    def run(self) -> str:
        """Ask all, and record what comes back until none is left; say how it ended unless all were settled whole."""
        given_back = 0
        try:
            for claim, grip in self._held:
                self._begin(claim, grip)
            while self._members:
                self._collect()
                self._record()
                given_back += self._give_back()
                self._obey()
                if all(member.feed.fed for member in self._members):
                    self._on_fed()
                self._wait()
        finally:
            for member in self._members:
                member.feed.cancel()
        return f"{given_back} jobs given back" if given_back else ""

    def _begin(self, claim: Claim, grip: Grip) -> None:
        try:
            framed = plan.unframe(claim.inline or b"")
            asked = [lines.read(number, line) for number, line in framed if number not in claim.recorded]
        except ValueError as error:
            self._break(claim, error)
            return
        records, groups = reuse(claim, asked, self._context.engine.answer_cache)
        feed = LineFeed(self._context.engine, claim, groups, grip)
        self._members.append(Member(claim, grip, feed, unrecorded=records))

    def _break(self, claim: Claim, error: BaseException) -> None:
        """A job whose bytes can't be read, or that meets a bug of ours: counted, so that it ends."""
        log.error("slice_broken", batch=claim.batch, slice=claim.slice, exc_info=error)
        self._insist(lambda: self._context.db.run(work.unreadable, claim))
        self.let_go(claim)

    def _collect(self) -> None:
        for member in list(self._members):
            member.finished = member.feed.done
            member.unrecorded += member.feed.collect()
            if member.feed.error:
                self._drop([member])
                self._break(member.claim, member.feed.error)
        self._lose([member for member in self._members if member.grip.lost])

    def _record(self) -> None:
        """One transaction for all that came back; those that are whole with it, or closing, end in it."""
        trusted = [member for member in self._members if member.grip.trusted]
        answered = [member for member in trusted if member.unrecorded]
        ending = [member for member in trusted if member.whole or (member.finished and member.grip.closing)]
        if not answered and not ending:
            return
        failpoint("slice.flushing")
        answers = [
            work.SliceAnswers(
                m.claim, m.tally.segments + 1, m.unrecorded, self._context.engine.gpu_microseconds(m.unrecorded)
            )
            for m in answered
        ]
        ends = [member.claim for member in ending]
        lost = self._insist(lambda: self._context.db.run(work.record, answers, ends))
        failpoint("segment.recorded")
        kept = [member for member in answered if member.claim.lease not in lost]
        for member in kept:
            member.tally = member.tally.plus(member.unrecorded)
            self.tally = self.tally.plus(member.unrecorded)
            member.unrecorded = []
        asked = [record for one in answers for record in one.records if one.claim.lease not in lost]
        self._context.meter.recorded(sum(record.usage.total_tokens for record in asked if not record.reused))
        self._lose([member for member in {*answered, *ending} if member.claim.lease in lost])
        self._drop([member for member in ending if member.claim.lease not in lost])

    def _give_back(self) -> int:
        """Those that are finished and not whole: the engine died, or the process ends. How many."""
        over = [one for one in self._members if one.finished and not one.unrecorded and not one.whole]
        over = [one for one in over if not one.grip.closing]
        if over:
            given = [(member.claim, member.feed.in_flight) for member in over]
            self._insist(lambda: self._context.db.run(work.give_back_all, given))
            self._drop(over)
        return len(over)

    def _obey(self) -> None:
        """Members of closing jobs, and all once the process ends, ask no more; after their grace they are cut off."""
        for member in list(self._members):
            if not self._context.beat.draining and member.grip.closing is None:
                continue
            member.feed.stop()
            if member.give_up_at is None:
                member.give_up_at = time.monotonic() + self._context.settings.close_grace_seconds
            elif time.monotonic() > member.give_up_at:
                member.feed.cancel()
                if member.finished:  # the process ends, and nobody said that the answers are still wanted
                    self._lose([member])

    def _wait(self) -> None:
        if not self._members:
            return
        self._news.wait(self._context.settings.flush_seconds)
        self._news.clear()
        failpoint("slice.asking")
        if not all(member.feed.done for member in self._members) and not self._context.beat.draining:
            part = _GATHER_PART * (time.monotonic() - self._began)
            time.sleep(min(max(_GATHER_SECONDS, part), self._context.settings.flush_seconds))

    def _lose(self, lost: Sequence[Member]) -> None:
        """Their answers are dropped, and counted: somebody else asks these lines again, or has."""
        if not lost:
            return
        for member in lost:
            member.feed.cancel()
        self._drop(lost)
        dropped = sum(len(member.unrecorded) for member in lost)
        log.warning("leases_lost", leases=[member.claim.lease for member in lost], dropped=dropped)
        self._insist(lambda: self._context.db.run(work.lost, dropped, len(lost)))

    def _drop(self, members: Iterable[Member]) -> None:
        for member in members:
            self._members.remove(member)
            self.let_go(member.claim)

    def _insist(self, call: Callable[[], R]) -> R:
        return insist(call, self._context.beat, self._context.settings.close_grace_seconds)
