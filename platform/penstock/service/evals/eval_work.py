"""Work on runs and comparisons: claimed, prolonged while it goes on, given back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from penstock.domain.api_errors import LeaseLost, Unavailable
from penstock.domain.evals.comparison import ComparisonState
from penstock.domain.evals.run import RUN_PREFIX, EvalRun, EvalWork, RunState
from penstock.domain.work import hint
from penstock.service.core.transaction import Database, Transaction
from penstock.settings.dispatch import DispatchSettings
from penstock.settings.leases import LeaseSettings
from penstock.store.evals import comparisons, eval_runs, eval_work

_MOST_PER_TICK: Final = 1_000
_TRUSTED_PART: Final = 0.9
"""Of a lease's time: the holder distrusts itself before the database does."""


def claim(tx: Transaction, id: str, settings: LeaseSettings) -> EvalWork | None:
    """Take a run or comparison; None if it is not free, or not due."""
    return eval_work.claim(tx.conn, id, ttl=timedelta(seconds=settings.lease_seconds))


def waiting(tx: Transaction) -> str | None:
    """The oldest run or comparison that waits for an io worker."""
    return eval_work.waiting(tx.conn)


def release(tx: Transaction, work: EvalWork, *, counts: bool = True) -> None:
    """Give it back; `counts`: this was an attempt."""
    eval_work.release(tx.conn, work, counts=counts)


def fail(tx: Transaction, work: EvalWork, code: str, message: str) -> None:
    """End it as failed; raise LeaseLost."""
    told = message[:1_000].replace("\0", "�").encode("utf-8", "replace").decode()  # Postgres keeps neither in its JSON
    error = {"code": code, "message": told}
    if work.id.startswith(RUN_PREFIX):
        done = eval_runs.end(tx.conn, work.id, work.lease, RunState.FAILED, error=error)
    else:
        done = comparisons.end(tx.conn, work.id, work.lease, ComparisonState.FAILED, error=error)
    if not done:
        raise LeaseLost


def completed(tx: Transaction, work: EvalWork, *, outcome: Mapping[str, Any], result_file: str, scored: int) -> EvalRun:
    """End a run with what its scorers found; the run. Raises LeaseLost."""
    state = RunState.COMPLETED
    if not eval_runs.end(tx.conn, work.id, work.lease, state, outcome=outcome, result_file=result_file, scored=scored):
        raise LeaseLost
    run = eval_runs.find(tx.conn, work.id)
    assert run is not None, "it was just written"
    return run


def move_on(tx: Transaction) -> int:
    """Let runs be scored whose batch has ended; how many."""
    due = eval_runs.move_on(tx.conn, limit=_MOST_PER_TICK)
    tx.hints.extend(map(hint.evaluate, due))
    return len(due)


def hint_again(tx: Transaction, settings: DispatchSettings) -> int:
    """Repeat the hints of runs and comparisons that nobody took: they may be lost. How many."""
    again = timedelta(seconds=settings.hint_again_seconds)
    found = eval_work.unhinted(tx.conn, again=again, limit=_MOST_PER_TICK)
    tx.hints.extend(map(hint.evaluate, found))
    return len(found)


class WorkerEnds(Exception):
    """The process ends: the work is given back, and is no attempt."""


class Hold:
    """A claim in somebody's hands: told of each line, it is prolonged every few seconds."""

    def __init__(
        self,
        db: Database,
        work: EvalWork,
        settings: LeaseSettings,
        clock: Callable[[], float] = time.monotonic,
        stops: Callable[[], bool] = lambda: False,
    ) -> None:
        """`clock`: seconds; the claim was sent just now by it. `stops`: whether the process ends."""
        self.work = work
        self.scored = 0
        """Lines so far, for people."""
        self._db = db
        self._ttl = timedelta(seconds=settings.lease_seconds)
        self._every = settings.beat_seconds
        self._trusted_seconds = settings.lease_seconds * _TRUSTED_PART
        self._clock = clock
        self._stops = stops
        self._prolonged_at = self._asked_at = clock()

    def tick(self) -> None:
        """Go on with one more line.

        Raises LeaseLost if it is somebody else's by now, or over; WorkerEnds if the process ends; Unavailable once the
        database was away for about as long as a lease lives.
        """
        now = self._clock()
        if now - self._asked_at < self._every:
            return
        if self._stops():
            raise WorkerEnds
        self._asked_at = now
        try:
            held = self._db.run(lambda tx: eval_work.prolong(tx.conn, self.work, ttl=self._ttl, scored=self.scored))
        except Unavailable:
            if now - self._prolonged_at > self._trusted_seconds:
                raise
            return
        if not held:
            raise LeaseLost
        self._prolonged_at = now
