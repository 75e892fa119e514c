"""The io worker's tasks: validate and assemble, each under a lease like a slice."""

from __future__ import annotations

import time
import uuid
from contextlib import ExitStack

import structlog

from penstock.domain.api_errors import LeaseLost, NoSpace, Unavailable
from penstock.domain.work.batch import Batch
from penstock.domain.work.lease import BatchLease
from penstock.service.lifecycle import work
from penstock.service.planning.validate import validate
from penstock.service.results.assemble import assemble
from penstock_worker.io.lease_tasks import MOST_ATTEMPTS, LeaseTasks
from penstock_worker.runtime.beat import now

log = structlog.get_logger()


class BatchTasks(LeaseTasks):
    """What validation and assembly need in this process."""

    def look(self) -> bool:
        """Validate or assemble the next batch that nobody holds, without having heard of it; say if there was one.

        Raises Unavailable or NoSpace if it was put off: there is no use in looking again at once.
        """
        if not self._beat.takes_work:
            return False
        waiting = self._db.run(work.waiting_for_io)
        if waiting is not None:
            self._run(*waiting)
        return waiting is not None

    def run(self, kind: str, batch: str) -> str:
        """Validate or assemble one batch if nobody else does; a sentence for Flower says what happened."""
        try:
            return self._run(kind, batch)
        except (Unavailable, NoSpace) as error:
            log.warning("put_off", kind=kind, batch=batch, error=error.message)
            return f"{batch} · put off: {error.message}"

    def _run(self, kind: str, batch: str) -> str:
        began, asked_at, nonce = time.monotonic(), now(), uuid.uuid4()
        with ExitStack() as hold:
            with self._beat.claims:
                if self._beat.drained:
                    return f"{batch} · the worker is drained"
                taken = self._insist(
                    lambda: self._db.run(work.claim_batch, self._holder, batch, kind, nonce, self._settings)
                )
                if taken is None:
                    return f"{batch} · nothing to {kind}"
                found, lease = taken
                hold.enter_context(self._beat.holding(lease.lease, asked_at))
            try:
                told = self._do(kind, found, lease)
            except LeaseLost:
                self._db.run(work.release, lease.lease)
                self._db.run(work.lost, 0)
                return f"{batch} · taken over or closed meanwhile"
            except (Unavailable, NoSpace):  # not its fault: it must not die of a disk that is full for an hour
                self._insist(lambda: self._db.run(work.put_off, lease.lease))
                raise
            except BaseException:
                self._db.run(work.release, lease.lease)
                raise
        seconds = time.monotonic() - began
        log.info(kind, batch=batch, told=told, seconds=round(seconds, 3))
        return f"{batch} · {told} · {seconds:.1f} s"

    def _do(self, kind: str, found: Batch, lease: BatchLease) -> str:
        if lease.attempt > MOST_ATTEMPTS:
            self._db.run(work.give_up, found.id, lease.lease)
            return f"failed after {MOST_ATTEMPTS} attempts"
        if kind == "validate":
            done = validate(self._db, self._blobs, found, lease.lease, self._settings)
            if done.errors:
                return f"{done.errors} errors"
            return f"{done.lines} lines · {done.slices} slices" + (f" · {done.skipped} skipped" if done.skipped else "")
        ended = assemble(self._db, self._blobs, found, lease.lease, self._settings)
        return f"{ended.state} · {ended.answered} answered · {ended.failed} failed"
