"""A held slice: one claim in this worker, the feed of its lines, and what came back of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from penstock.domain.work.slice import Claim
from penstock.formats.output import Record
from penstock_worker.runtime.beat import Grip
from penstock_worker.slices.line_feed import LineFeed


@dataclass
class Tally:
    """What was recorded by this holder."""

    answered: int = 0
    failed: int = 0
    segments: int = 0

    def plus(self, records: Sequence[Record]) -> Tally:
        """With one more segment, of these records."""
        failed = sum(record.failed for record in records)
        return Tally(self.answered + len(records) - failed, self.failed + failed, self.segments + 1)


@dataclass(eq=False)
class HeldSlice:
    """A claim, from its first line to its end here. All of it belongs to the thread that runs it."""

    claim: Claim
    grip: Grip
    hold: ExitStack
    """Closed once the lease is held no more: the beat names it no longer."""
    feed: LineFeed | None = None
    more: bool = True
    """Lines will be fed that are in no feed yet."""
    tally: Tally = field(default_factory=Tally)
    unrecorded: list[Record] = field(default_factory=list)
    """Answers that are in no segment yet."""
    _give_up_at: float | None = None

    def collect(self) -> BaseException | None:
        """Take what came back since the last time; what broke the feed, if something did."""
        if self.feed is None:
            return None
        self.unrecorded += self.feed.collect()
        return self.feed.error

    @property
    def idle(self) -> bool:
        """None of its lines is in the engine or on its way there."""
        return self.feed is None or self.feed.done

    @property
    def fed(self) -> bool:
        """Only the last answers are waited for."""
        return not self.more and (self.feed is None or self.feed.fed)

    @property
    def finished(self) -> bool:
        """Nothing more comes back."""
        return not self.more and self.idle

    @property
    def over(self) -> bool:
        """Nothing more comes back, and all that came is recorded."""
        return self.finished and not self.unrecorded

    @property
    def whole(self) -> bool:
        """Every line is recorded, or about to be."""
        there = self.tally.answered + self.tally.failed + len(self.unrecorded) + len(self.claim.recorded)
        return there == self.claim.lines

    @property
    def in_flight(self) -> list[int]:
        """The lines that were in the engine when it died."""
        return self.feed.in_flight if self.feed else []

    @property
    def engine_gone(self) -> bool:
        """Whether the engine died under it."""
        return self.feed is not None and self.feed.engine_gone

    def stop(self, grace_seconds: float) -> bool:
        """Feed no more; says whether the time that its answers have from the first call on is over."""
        if self.feed:
            self.feed.stop()
        if self._give_up_at is None:
            self._give_up_at = time.monotonic() + grace_seconds
        return time.monotonic() > self._give_up_at

    def cut_off(self) -> None:
        """Abort what is in flight too."""
        if self.feed:
            self.feed.cancel()
