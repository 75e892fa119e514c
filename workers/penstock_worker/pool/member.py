"""A member: one version's gpu worker on a pool's host, as processes; nothing of it outlives the host.

A guard leads it as it leads an engine: whatever ends the host, the kernel closes the line between them, and the guard
kills the worker and its engine. One that dies by itself is started again, after a second death a little later each
time; it ends when the host says so.
"""

from __future__ import annotations

import random
import re
import select
import socket
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

import structlog

from penstock_worker.engine.process import log_file, process_record
from penstock_worker.engine.process.guard import look_up
from penstock_worker.engine.process.guarded_process import GuardedProcess
from penstock_worker.engine.process.supervisor import backoff_seconds
from penstock_worker.pool.member_launch import MemberLaunch

log = structlog.get_logger()

_SETTLED_SECONDS: Final = 60.0
_LAST_WORD: Final = re.compile(r"^penstock worker: (.+)$", re.MULTILINE)
_MOST_WORDS: Final = 400


class Member:
    """One version on this host. It may be started and ended any number of times; used from one thread."""

    def __init__(self, launch: MemberLaunch, chance: Callable[[], float] = random.random) -> None:
        self.launch = launch
        self._chance = chance
        self._now: GuardedProcess | None = None
        self._starts = 0
        self._deaths_in_row = 0
        self._started_at = 0.0
        self._starts_at: float | None = None
        """When one that died is started again."""
        self.kept = False
        """Whether it is started again when it dies by itself."""
        self.worker: UUID | None = None
        """Its worker's id, once that is known."""

    @property
    def pid(self) -> int | None:
        """The worker's process, once its guard has told."""
        self._listen()
        return self._now.program.pid if self._now and self._now.program else None

    @property
    def line(self) -> socket.socket | None:
        """Readable when there is news of it."""
        return self._now.line if self._now else None

    @property
    def runs(self) -> bool:
        """Whether its processes are there, as far as is known."""
        self._listen()
        return self._now is not None

    @property
    def engine(self) -> int | None:
        """Which start of its engine there is, by the session that this has; None if there is none."""
        read = process_record.read(self.launch.engine_record_path)
        return read.session if read else None

    def start(self) -> None:
        """Start it now; raises OSError if that can't be."""
        assert self._now is None, "it runs already"
        launch = self.launch
        for folder in (launch.folder, launch.log_path.parent):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._starts += 1
        self._starts_at = None
        self._started_at = time.monotonic()
        started = GuardedProcess(
            launch.command,
            launch.environment,
            self._starts,
            record_path=launch.record_path,
            log_path=launch.log_path,
        )
        self._now = started.__enter__()

    def tend(self) -> None:
        """Look at it once: remember its processes; start it again when it died and that is due."""
        self._listen()
        if self._now is not None:
            self._now.note()
        elif self.kept and self._starts_at is not None and time.monotonic() >= self._starts_at:
            try:
                self.start()
            except OSError as error:
                log.warning("member_not_started", queue=self.launch.queue, error=str(error))
                self._die()

    def terminate(self) -> None:
        """SIGTERM: it takes nothing new, gives back what it holds, ends its engine, and is not started again."""
        self.kept = False
        if self._now is not None:
            self._now.note()
            self._now.tell_to_end()

    def kill(self) -> None:
        """Kill all of it; one that is kept is started again as if it had died."""
        if self._now is not None:
            self._clear()
            self._die()

    def end(self) -> None:
        """Kill what is left of it, its engine too, and see all of that gone."""
        self.kept = False
        self._deaths_in_row = 0
        self._clear()

    @property
    def last_word(self) -> str:
        """Why it ended, in its own words if it had any; for a person."""
        text = log_file.tail(self.launch.log_path).rpartition(log_file.START)[2]
        said = _LAST_WORD.findall(text)
        words = said[-1] if said else log_file.cause(self.launch.log_path)
        return "".join(filter(str.isprintable, words))[:_MOST_WORDS]

    def _listen(self) -> None:
        """Hear whether it ended by itself; then nothing of it is left when this returns."""
        while self._now is not None and select.select([self._now.line], [], [], 0)[0]:
            if not self._now.heard():
                self._clear()
                self._die()

    def _clear(self) -> None:
        if self._now is None:
            return
        ended, self._now = self._now, None
        ended.__exit__(None, None, None)
        now = {one.pid: look_up(one.pid) for one in ended.processes}
        left = [
            one.pid for one in ended.processes if (then := now[one.pid]) and then.started_ticks == one.started_ticks
        ]
        if left:
            log.error("member_left_processes", queue=self.launch.queue, pids=left)
        if found := process_record.kill_leftovers(self.launch.engine_record_path):
            log.warning("member_left_its_engine", queue=self.launch.queue, processes=found)

    def _die(self) -> None:
        now, self.worker = time.monotonic(), None
        self._deaths_in_row = 1 if now - self._started_at > _SETTLED_SECONDS else self._deaths_in_row + 1
        self._starts_at = now + backoff_seconds(self._deaths_in_row, self._chance())
        if self.kept:
            log.warning("member_died", queue=self.launch.queue, deaths_in_row=self._deaths_in_row, why=self.last_word)
