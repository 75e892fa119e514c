"""The host's loop: it looks after its members, asks the policy each second who is to be awake, and does one switch.

All of it is done in the main thread, one thing after the other; what may hang (an engine's answer) is waited for from
here. Once the host is told to end, whatever waits raises HostEnds, and its members are told the same.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, TypeVar

import structlog

from penstock.domain.api_errors import NotFound, Unavailable
from penstock.settings import Settings
from penstock_worker.pool.member import Member
from penstock_worker.pool.member_set import MemberSet
from penstock_worker.pool.pool_rows import PoolRows
from penstock_worker.pool.switching import HostEnds, Switching
from penstock_worker.runtime.beat import Beat

log = structlog.get_logger()

_STEP_SECONDS: Final = 0.1
_AGAIN_SECONDS: Final = 0.5
_NEWS_SECONDS: Final = 10.0
_SILENT_SECONDS: Final = 60.0
"""A member of which nothing is heard for so long, after it was taken for lost, is hung."""
R = TypeVar("R")


class HostLoop:
    """One host's work, until it is told to end."""

    def __init__(self, pool: str, settings: Settings, members: MemberSet) -> None:
        self._pool = pool
        self._settings = settings
        self._members = members
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="aside")
        self._wake, self._wake_in = os.pipe()
        os.set_blocking(self._wake_in, False)
        self._ends = False
        self.drained = False
        """An operator's order: whoever is awake stays, and nobody comes."""
        self._unready_since: dict[str, float] = {}
        self._told_at = float("-inf")

    def listen(self, beat: Beat) -> None:
        """Hear SIGTERM and SIGINT from now on: the host ends, and nobody insists on Postgres for it any more."""

        def hear(*_: object) -> None:  # in the middle of anything: no lock may be taken
            self._ends = beat.draining = True
            with suppress(OSError):
                os.write(self._wake_in, b".")

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, hear)

    # How it waits.

    def pause(self, seconds: float) -> None:
        """Wait for so long, or until there is news of a member. Raises HostEnds."""
        self._select(seconds)
        if self._ends:
            raise HostEnds

    def _select(self, seconds: float) -> None:
        watched: list[Any] = [self._wake, *self._members.lines]
        if self._wake in select.select(watched, [], [], max(0.0, seconds))[0]:
            os.read(self._wake, 4096)

    def again(self) -> None:
        """Postgres is away: look after the members, and wait a moment. Raises HostEnds."""
        self._members.tend()
        self.pause(_AGAIN_SECONDS)

    def until(self, look: Callable[[], bool], seconds: float) -> bool:
        """Look again and again; False if there is nothing to see for so long, in which Postgres was there."""
        left = seconds
        while True:
            began, away = time.monotonic(), False
            self._members.tend()
            try:
                if look():
                    return True
            except Unavailable:
                away = True
            if left <= 0:
                return False
            self.pause(min(_STEP_SECONDS, left))
            if not away:
                left -= time.monotonic() - began

    def aside(self, do: Callable[[], R]) -> R:
        """Do what may take long and ends by itself, in a thread."""
        done = self._aside.submit(do)
        while not done.done():
            self._members.tend()
            self.pause(_STEP_SECONDS)
        return done.result()

    # What it does.

    def run(self, rows: PoolRows, switching: Switching) -> str:
        """Look and switch until told to end; why it ended by itself, or empty. Afterwards no member is left."""
        try:
            while True:
                try:
                    self._look(rows, switching)
                except Unavailable as error:
                    self._unready_since.clear()
                    if time.monotonic() - self._told_at > _NEWS_SECONDS:
                        self._told_at = time.monotonic()
                        log.warning("waiting", error=error.message)
                except (HostEnds, NotFound):
                    raise
                except Exception:  # a fault of ours: whoever was in the middle of a switch ends, the others go on
                    log.exception("look_failed")
                    switching.end_unfinished()
                self.pause(self._settings.pool_look_seconds)
        except HostEnds:
            return ""
        except NotFound:
            return f"There is no pool {self._pool} any more."
        finally:
            self._end_members()

    def _look(self, rows: PoolRows, switching: Switching) -> None:
        self._members.tend()
        self._tell_changes(rows)
        if self.drained:
            return
        decided = rows.decide(switching.method)
        for member in self._members:
            if member.launch.queue not in decided.versions:
                log.info("left_the_pool", queue=member.launch.queue)
                switching.stop(member)
        if decided.number is not None:
            switching.run(decided.number, decided.decision)

    def _tell_changes(self, rows: PoolRows) -> None:
        """What became of members by itself: one is back under another id, one died in its sleep, one never comes."""
        workers = rows.workers()
        here = {member.launch.queue for member in self._members}
        self._unready_since = {queue: since for queue, since in self._unready_since.items() if queue in here}
        for member in self._members:
            queue, pid = member.launch.queue, member.pid
            worker = workers.get(pid) if pid is not None else None
            if queue in self._members.asleep:
                if not member.runs:
                    log.warning("died_asleep", queue=queue)
                    self._members.end(queue)
                    rows.put(queue, "stopped")
                continue
            if worker is not None and worker.state in ("ready", "drained"):
                self._unready_since.pop(queue, None)
                if worker.id != member.worker:
                    member.worker = worker.id
                    rows.put(queue, "awake", worker.id)
                continue
            unready_seconds = time.monotonic() - self._unready_since.setdefault(queue, time.monotonic())
            if unready_seconds > self._settings.pool_start_seconds:
                self._give_up(rows, member, worker.engine_trouble if worker else None)
            elif worker is None and member.runs and member.worker and unready_seconds > _SILENT_SECONDS:
                log.error("member_silent", queue=queue, seconds=round(unready_seconds))
                rows.count("pool_member_killed")
                member.kill()

    def _give_up(self, rows: PoolRows, member: Member, trouble: str | None) -> None:
        queue = member.launch.queue
        self._unready_since.pop(queue, None)
        why = trouble or member.last_word or "It died, and was not ready again in time."
        self._members.end(queue)
        rows.put(queue, "stopped")
        rows.unfit(queue, why)

    def _end_members(self) -> None:
        """Tell all to end, wait as long as one may take to leave, then kill what is left."""
        self._aside.shutdown(wait=False, cancel_futures=True)
        self._members.terminate()
        end = time.monotonic() + self._settings.pool_leave_seconds
        while any(member.runs for member in self._members) and time.monotonic() < end:
            self._select(min(_STEP_SECONDS, end - time.monotonic()))
