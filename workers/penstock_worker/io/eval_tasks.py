"""The io worker's tasks for evals: prepare and score runs, compare two of them; one at a time in a process.

A run over a million lines takes minutes: it must not take both of the places that validation and assembly have.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import LeaseLost, NoSpace, Unavailable, Unreadable
from penstock.domain.evals.run import EvalWork, RunFailed
from penstock.service.core.transaction import Database
from penstock.service.evals import eval_work, task
from penstock.service.evals.eval_work import Hold, WorkerEnds
from penstock.settings import Settings
from penstock_worker.runtime.beat import Beat
from penstock_worker.runtime.patience import insist

log = structlog.get_logger()
R = TypeVar("R")

MOST_ATTEMPTS = 3


class EvalTasks:
    """What evals need in this process."""

    def __init__(self, db: Database, blobs: Blobs, beat: Beat, settings: Settings) -> None:
        self._db = db
        self._blobs = blobs
        self._beat = beat
        self._settings = settings
        self._place = threading.Lock()

    def look(self) -> bool:
        """Work on the oldest that waits, without having heard of it; say if there was one.

        Raises Unavailable or NoSpace if it was put off: there is no use in looking again at once.
        """
        if not self._beat.takes_work or not self._place.acquire(blocking=False):
            return False
        try:
            return self._next()
        finally:
            self._place.release()

    def run(self, id: str) -> str:
        """Work on one if nobody else does, then on those that wait; a sentence for Flower says what happened."""
        if not self._place.acquire(blocking=False):
            return f"{id} · waits: one is worked on here"
        try:
            told = self._run(id)
            while self._beat.takes_work and self._next():
                pass
            return told
        except (Unavailable, NoSpace) as error:
            log.warning("put_off", kind="evaluate", id=id, error=error.message)
            return f"{id} · put off: {error.message}"
        finally:
            self._place.release()

    def _next(self) -> bool:
        waiting = self._db.run(eval_work.waiting)
        if waiting is not None:
            self._run(waiting)
        return waiting is not None

    def _run(self, id: str) -> str:
        began = time.monotonic()
        with self._beat.claims:
            if not self._beat.takes_work:
                return f"{id} · the worker takes nothing new"
            work = self._db.run(eval_work.claim, id, self._settings)
        if work is None:
            return f"{id} · nothing to do"
        hold = Hold(self._db, work, self._settings, stops=lambda: self._beat.draining)
        try:
            told = self._do(work, hold)
        except LeaseLost:
            return f"{id} · taken over or cancelled meanwhile"
        except RunFailed as error:
            told = self._fail(work, error.code, error.message)
        except Unreadable as error:
            told = self._fail(work, "results_gone", str(error))
        except WorkerEnds:
            self._release(work, counts=False)
            return f"{id} · given back: the worker ends"
        except (Unavailable, NoSpace):  # not its fault
            self._release(work, counts=False)
            raise
        except BaseException:
            self._release(work, counts=True)
            raise
        seconds = time.monotonic() - began
        log.info("evaluated", id=id, told=told, seconds=round(seconds, 3))
        return f"{id} · {told} · {seconds:.1f} s"

    def _do(self, work: EvalWork, hold: Hold) -> str:
        if work.attempt > MOST_ATTEMPTS:
            raise RunFailed("internal_error", "It could not be worked on; see the logs.")
        return task.do(self._db, self._blobs, hold, self._settings)

    def _fail(self, work: EvalWork, code: str, message: str) -> str:
        self._insist(lambda: self._db.run(eval_work.fail, work, code, message))
        return f"failed: {code}"

    def _release(self, work: EvalWork, *, counts: bool) -> None:
        self._insist(lambda: self._db.run(eval_work.release, work, counts=counts))

    def _insist(self, call: Callable[[], R]) -> R:
        return insist(call, self._beat, self._settings.close_grace_seconds)
