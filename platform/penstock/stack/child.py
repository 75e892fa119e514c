"""Children: one supervised process each, in a process group of its own, that never outlives this process."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_OUR_LINES: Final = ("penstock: ", "penstock worker: ")

LAUNCH = Path(__file__).with_name("launch.py")
LOG_LIMIT_BYTES = 64 * 1024 * 1024


class Child:
    """One process with a log file; it starts again, later each time, when it dies. Used with `with`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        user: str | None = None,
        stop_signal: int = signal.SIGTERM,
        death_signal: int = signal.SIGKILL,
        grace_seconds: float = 10.0,
        first_delay_seconds: float = 0.5,
        longest_delay_seconds: float = 30.0,
        settled_seconds: float = 60.0,
    ) -> None:
        """Describe it; `start` runs it.

        `death_signal` is what the kernel sends it when this process dies. After a life of `settled_seconds`
        the delay of the next restart is the first one again.
        """
        self.name = name
        self.log = log
        self.restarts = 0
        self._command = [*tie(death_signal), user or "-", *command]
        self._environment = environment
        self._stdin = stdin
        self._stop_signal = stop_signal
        self._grace_seconds = grace_seconds
        self._delays = (first_delay_seconds, longest_delay_seconds)
        self._settled_seconds = settled_seconds
        self._delay_seconds = first_delay_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._starts_at: float | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The process that runs now, if one does."""
        return self._process.pid if self._process is not None and not self.wait(0.0) else None

    @property
    def status(self) -> int | None:
        """How it ended last; None while it runs."""
        return self._process.returncode if self._process is not None and self.wait(0.0) else None

    def start(self) -> None:
        """Run the program now."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._rotate()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL if self._stdin is None else subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if self._environment is None else dict(self._environment),
                process_group=0,
            )
        if self._stdin is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError), self._process.stdin as pipe:
                pipe.write(self._stdin)
        self._started_at = time.monotonic()
        self._starts_at = None

    def _rotate(self) -> None:
        """Begin the log anew once it is long, and keep the one before; the process goes on writing to the same file.

        Lines that it writes between the copy and the cut are lost.
        """
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT_BYTES:
            shutil.copyfile(self.log, self.log.with_suffix(".old"))
            os.truncate(self.log, 0)

    def tend(self, now: float) -> str | None:
        """Look at it once, at this monotonic time; start it again when due. Says what changed, in words."""
        if self._process is None or not self.wait(0.0):
            self._rotate()
            return None
        if self._starts_at is None:
            if now - self._started_at >= self._settled_seconds:
                self._delay_seconds = self._delays[0]
            self._starts_at = now + self._delay_seconds
            ended = how_it_ended(self._process.returncode)
            said = f"{self.name} {ended}; starts again in {self._delay_seconds:g} s (log: {self.log})"
            self._delay_seconds = min(self._delay_seconds * 2, self._delays[1])
            return said
        if now < self._starts_at:
            return None
        self.start()
        self.restarts += 1
        return f"{self.name} started again"

    def ask_to_stop(self) -> None:
        """Send the stop signal, and return at once."""
        if self._process is not None and not self.wait(0.0):
            self._process.send_signal(self._stop_signal)

    def stop(self) -> None:
        """Ask it to stop, wait for the grace, then kill what is left of its group."""
        if self._process is None:
            return
        self.ask_to_stop()
        if not self.wait(self._grace_seconds):
            self._kill_group()
            self._process.wait()
        self._process = None

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, or ends within these seconds; what is left of its group then dies with it.

        The group is killed before its leader is reaped: until then the number can't belong to anybody else.
        """
        if self._process is None or self._process.returncode is not None:
            return True
        with open(os.pidfd_open(self._process.pid)) as pidfd:
            if not select.select([pidfd], [], [], seconds)[0]:
                return False
        self._kill_group()
        self._process.wait()
        return True

    def _kill_group(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


def tie(death_signal: int) -> list[str]:
    """The start of a command line that dies with this process; a user (or `-`) and the program follow."""
    return [sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), str(int(death_signal))]


def how_it_ended(returncode: int) -> str:
    """Say an exit status in words."""
    if returncode >= 0:
        return f"ended with status {returncode}"
    return f"was killed by {signal.Signals(-returncode).name}"


def last_lines(log: Path, count: int = 5, limit_bytes: int = 8192) -> str:
    """The end of a log, for a message about a child that would not start."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - limit_bytes))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-count:])


def last_word(child: Child) -> str | None:
    """Why a child of ours ended by its own decision, in its own line: started again, it would end alike."""
    if child.status != 1:
        return None
    lines = last_lines(child.log).splitlines()
    return next((line.partition(": ")[2] for line in reversed(lines) if line.startswith(_OUR_LINES)), None)
