"""The io worker's folds: one answer made of what an ensemble's members said, each fold under a lease like a slice."""

from __future__ import annotations

import time
import uuid
from contextlib import ExitStack

import structlog

from penstock.domain.api_errors import LeaseLost, NoSpace, Unavailable
from penstock.domain.work.fold_claim import FoldClaim
from penstock.service.lifecycle import folds, work
from penstock.service.results.folding import Folding, FoldOutcome
from penstock_worker.io.lease_tasks import MOST_ATTEMPTS, LeaseTasks
from penstock_worker.runtime.beat import now

log = structlog.get_logger()


class FoldTasks(LeaseTasks):
    """What folds need in this process."""

    def look(self) -> bool:
        """Do the next fold that nobody holds, without having heard of it; say if there was one.

        Raises Unavailable or NoSpace if it was put off.
        """
        if not self._beat.takes_work:
            return False
        batch = self._db.run(folds.waiting)
        return batch is not None and self._next(batch) is not None

    def run(self, batch: str) -> str:
        """Do a batch's folds while any is due that nobody else does; a sentence for Flower says what happened."""
        began, done = time.monotonic(), []
        try:
            while (folded := self._next(batch)) is not None:
                done.append(folded)
        except (Unavailable, NoSpace) as error:
            log.warning("put_off", kind="fold", batch=batch, error=error.message)
            return f"{batch} · put off: {error.message}"
        if not done:
            return f"{batch} · nothing to fold"
        lines, asked = sum(one.lines for one in done), sum(one.asked for one in done)
        further = f" · {asked} asked further" if asked else ""
        return f"{batch} · {lines} lines{further} · {len(done)} folds · {time.monotonic() - began:.1f} s"

    def _next(self, batch: str) -> FoldOutcome | None:
        """Do one fold; None if there is none, or this worker takes no more."""
        asked_at, nonce = now(), uuid.uuid4()
        with ExitStack() as hold:
            with self._beat.claims:
                if not self._beat.takes_work:
                    return None
                taken = self._insist(lambda: self._db.run(folds.claim, self._holder, batch, nonce, self._settings))
                if taken is None:
                    return None
                hold.enter_context(self._beat.holding(taken.claim.lease, asked_at))
            return self._do(taken)

    def _do(self, taken: FoldClaim) -> FoldOutcome:
        claim = taken.claim
        began = time.monotonic()
        try:
            if claim.crashes >= MOST_ATTEMPTS:
                raise ValueError(f"{claim.crashes} holders of this fold fell silent")
            folded = Folding(self._db, self._blobs, taken, self._settings).run()
        except LeaseLost:
            self._db.run(work.release, claim.lease)
            self._db.run(work.lost, 0)
            return FoldOutcome()
        except (Unavailable, NoSpace):
            self._insist(lambda: self._db.run(work.release, claim.lease))
            raise
        except Exception as error:  # its bytes can't be read, or it meets a bug of ours: counted, so that it ends
            log.error("slice_broken", batch=claim.batch, slice=claim.slice, exc_info=error)
            self._insist(lambda: self._db.run(work.unreadable, claim))
            return FoldOutcome()
        except BaseException:  # the process is told to end: whoever is next need not wait for the lease
            self._db.run(work.release, claim.lease)
            raise
        counted = {
            "lines": folded.lines,
            "lines_failed": folded.failed,
            "lines_escalated": folded.asked,
            "votes": folded.votes,
            "votes_tied": folded.tied,
            "votes_agreement_thousandths": round(folded.agreement * 1_000),
        }
        for name, by in counted.items():
            if by:
                self._db.run(work.count, f"ensemble_{name}/{taken.definition.name}", by)
        log.info("fold", batch=claim.batch, lines=folded.lines, asked=folded.asked,
                 seconds=round(time.monotonic() - began, 3))  # fmt: skip
        return folded
