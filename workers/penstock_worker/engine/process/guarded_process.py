"""A guarded process: one start of a program under a guard: its processes, their record on disk, and their end."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock_worker.engine.process import guard as guard_module
from penstock_worker.engine.process import log_file, process_record
from penstock_worker.engine.process.guard import Process, kill, kill_session, look_up, members

log = logging.getLogger(__name__)


class GuardedProcess:
    """A program's processes from `with` to its end; afterwards none of them is left, and `status` says how it ended."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        generation: int,
        *,
        record_path: Path,
        log_path: Path,
    ) -> None:
        """`environment` is the whole of it, `generation` the number of this start, for the log."""
        self._command = tuple(command)
        self._environment = dict(environment)
        self._generation = generation
        self._record_path = record_path
        self._log_path = log_path
        self._seen: dict[int, Process] = {}
        self.program: Process | None = None
        """The program's first process, once the guard has told."""
        self.status = 0
        self.line, self._theirs = socket.socketpair()
        """Readable when the guard has something to say, and when it has ended."""

    @property
    def processes(self) -> tuple[Process, ...]:
        """The guard and the program's processes as last seen, the guard first."""
        return tuple(self._seen.values())

    def __enter__(self) -> Self:
        with self._theirs:
            try:
                log_file.turn_over(self._log_path)
                self._guard = self._start(self._theirs)
            except BaseException:
                self.line.close()
                raise
        self.note()
        return self

    def _start(self, line: socket.socket) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-S", "-E", guard_module.__file__, str(line.fileno()), *self._command]
        with self._log_path.open("ab") as file:
            with contextlib.suppress(OSError):
                file.write(f"{log_file.START}{self._generation}: {shlex.join(self._command)}\n".encode())
                file.flush()
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=self._environment,
                pass_fds=(line.fileno(),),
                start_new_session=True,
            )

    def note(self) -> None:
        """Remember the processes that are there now; the record grows as they do."""
        leader = look_up(self._guard.pid)
        found = {} if leader is None else {p.pid: p for p in (leader, *members(self._guard.pid, self._guard.pid))}
        if found.keys() - self._seen.keys():
            self._seen.update(found)
            self._save()

    def _save(self) -> None:
        try:
            process_record.write(self._record_path, self._guard.pid, self._seen.values())
        except OSError as error:
            log.warning("The processes can't be recorded in %s: %s", self._record_path, error)

    def heard(self) -> bool:
        """Read what the guard said (the program's pid); False if it has ended."""
        with contextlib.suppress(OSError):
            if said := self.line.recv(4096):
                self.program = Process(*json.loads(said))
                self._seen[self.program.pid] = self.program
                self._save()
                return True
        return False

    def tell_to_end(self) -> None:
        """SIGTERM to the guard, which passes it on."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._guard.pid, signal.SIGTERM)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See the last process gone. Usually the guard has done it all; one that still lives kills everything now.

        Until it is waited for, its pid, which names the session, stays ours.
        """
        self.line.close()
        _wait_unreaped(self._guard.pid, 5.0)
        for process in self._seen.values():
            kill(process)
        if kill_session(self._guard.pid, timeout_seconds=30.0):
            self._record_path.unlink(missing_ok=True)
        else:
            log.error("The session %d can't be killed; the next start tries again.", self._guard.pid)
        self.status = self._guard.wait()

    def status_in_words(self) -> str:
        """How it ended, for a person."""
        if self.status < 0:
            return f"Its guard was killed by signal {-self.status}."
        if self.status > 128:
            with contextlib.suppress(ValueError):
                return f"It was killed by {signal.Signals(self.status - 128).name}."
        return f"Its exit status was {self.status}."


def _wait_unreaped(pid: int, timeout_seconds: float) -> None:
    """Wait for a child's end without taking its status, so that its pid is not given out again."""
    until = time.monotonic() + timeout_seconds
    while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) and time.monotonic() < until:
        time.sleep(0.01)
