"""The io worker's tasks: validate and assemble, each under a lease like a slice."""

from __future__ import annotations

import time
import uuid

import structlog

from penstock.blobs.store import Blobs
from penstock.domain.errors import LeaseLost
from penstock.service import work
from penstock.service.assemble import assemble
from penstock.service.transaction import Database
from penstock.service.validate import validate
from penstock.settings import Settings
from penstock_worker.beat import Beat, now

log = structlog.get_logger()

MOST_ATTEMPTS = 3


class Io:
    """What validation and assembly need in this process."""

    def __init__(self, db: Database, blobs: Blobs, beat: Beat, holder: work.Holder, settings: Settings) -> None:
        self._db = db
        self._blobs = blobs
        self._beat = beat
        self._holder = holder
        self._settings = settings

    def look(self) -> bool:
        """Validate or assemble the next batch that nobody holds, without having heard of it; say if there was one."""
        if self._beat.draining:
            return False
        waiting = self._db.run(work.waiting_for_io)
        if waiting is not None:
            self.run(*waiting)
        return waiting is not None

    def run(self, kind: str, batch: str) -> str:
        """Validate or assemble one batch if nobody else does; a sentence for Flower says what happened."""
        began, asked_at = time.monotonic(), now()
        taken = self._db.run(work.claim_batch, self._holder, batch, kind, uuid.uuid4(), self._settings)
        if taken is None:
            return f"{batch} · nothing to {kind}"
        found, lease = taken
        with self._beat.holding(lease.lease, asked_at):
            try:
                if lease.attempt > MOST_ATTEMPTS:
                    self._db.run(work.give_up, batch, lease.lease)
                    return f"{batch} · failed after {MOST_ATTEMPTS} attempts"
                if kind == "validate":
                    done = validate(self._db, self._blobs, found, lease.lease, self._settings)
                    told = f"{done.lines} lines · {done.slices} slices" if not done.errors else f"{done.errors} errors"
                else:
                    ended = assemble(self._db, self._blobs, found, lease.lease, self._settings)
                    told = f"{ended.state} · {ended.answered} answered · {ended.failed} failed"
            except LeaseLost:
                self._db.run(work.release, lease.lease)
                self._db.run(work.lost, 0)
                return f"{batch} · taken over or closed meanwhile"
            except BaseException:
                self._db.run(work.release, lease.lease)
                raise
        seconds = time.monotonic() - began
        log.info(kind, batch=batch, told=told, seconds=round(seconds, 3))
        return f"{batch} · {told} · {seconds:.1f} s"
