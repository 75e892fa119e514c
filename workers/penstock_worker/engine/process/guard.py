"""The guard: no process of an engine outlives the worker that started it.

It is run as a file (`python -S -E guard.py FD COMMAND…`, standard library only, up in some 20 ms) and leads a session
of its own. FD is one end of a socket pair whose other end only the worker holds: both ends are close-on-exec, so no
other child of the worker inherits it, and the kernel closes it however the worker dies. The guard starts COMMAND in
the same session, writes its pid and start time to FD, and then waits for one of three things:

- end of file on FD (the worker is dead, or has had enough): SIGKILL for the whole session;
- SIGTERM: passed on to the engine, which may end in its own way;
- the engine's end: SIGKILL for what it left behind (vLLM's EngineCore outlives its API server), then the guard ends
  with the engine's status, 128 + n for signal n.

The guard is the subreaper of its session, so even a process that fled into a session of its own comes back as a
child when its parent dies, and is killed too. If the guard itself is killed, the kernel kills the engine's first
process (parent-death signal) and the supervisor the rest.

A worker must not fork without exec (Celery's prefork pool does): the fork would hold the worker's end open.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Process:
    """One process as the kernel names it for good: a pid is used again, a pid with its start time never."""

    pid: int
    started_ticks: int
    """Clock ticks from boot to its start."""
    parent: int = 0
    session: int = 0


def look_up(pid: int) -> Process | None:
    """Read one process from /proc; None if it is gone or a zombie, which holds neither memory nor sockets.

    One whose first thread has ended before the others is no zombie yet, although its state says so: it holds all it
    had, its children too.
    """
    try:
        # The name in brackets may hold spaces and brackets: the fields begin after the last bracket.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in b"ZX" and int(fields[17]) <= 1:
        return None
    return Process(pid, int(fields[19]), int(fields[1]), int(fields[3]))


def living() -> list[Process]:
    """All processes of this machine (a few hundred take some 5 ms)."""
    found = (look_up(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [process for process in found if process]


def kill(process: Process) -> bool:
    """SIGKILL exactly this process; False if it was gone, even if another has its pid now."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except (OSError, AttributeError):  # A kernel without pidfds: a small race is left.
        handle = -1
    try:
        now = look_up(process.pid)
        if now is None or now.started_ticks != process.started_ticks:
            return False
        if handle >= 0:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False
    finally:
        if handle >= 0:
            os.close(handle)


def members(session: int, root: int = 0) -> list[Process]:
    """The processes of a session, and the descendants of `root` that left it; the caller is never among them."""
    everyone = living()
    family = {root} if root else set()
    grown = True
    while grown:
        young = {p.pid for p in everyone if p.parent in family} - family
        family |= young
        grown = bool(young)
    return [p for p in everyone if (p.session == session or p.pid in family) and p.pid != os.getpid()]


def kill_session(session: int, root: int = 0, timeout_seconds: float = 5.0) -> bool:
    """SIGKILL everything in a session until nothing is left; False if something still is after the timeout.

    It looks twice: a look is not one moment, and a process whose parent ends meanwhile may be nobody's child in it.
    """
    deadline = time.monotonic() + timeout_seconds
    looks = 2
    while looks:
        left = members(session, root)
        looks = 2 if left else looks - 1
        for process in left:
            kill(process)
        _bury_children_of_the_guard(root)
        if left and time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _bury_orphans(engine: int) -> None:
    """Take in the ends of processes that fell to us as subreaper, but leave the engine's to its own wait."""
    with contextlib.suppress(ChildProcessError):
        while (dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and dead.si_pid != engine:
            os.waitpid(dead.si_pid, 0)


def _bury_children_of_the_guard(root: int) -> None:
    if root != os.getpid():
        return
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    guard = os.getpid()

    def die_with_the_guard() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(1)

    # A process group of its own inside the guard's session: an engine that signals its group spares the guard.
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=die_with_the_guard)


def _wait(line: int, wakeup: int, engine: subprocess.Popen[bytes], wants_end: list[bool]) -> bool:
    """Wait until the engine ends (True) or the worker's end of the line closes (False)."""
    poll = select.poll()
    poll.register(line, select.POLLIN)
    poll.register(wakeup, select.POLLIN)
    asked = False
    while engine.poll() is None:
        _bury_orphans(engine.pid)
        if wants_end and not asked:
            asked = True
            engine.send_signal(signal.SIGTERM)
        ready = dict(poll.poll())
        if wakeup in ready:
            os.read(wakeup, 512)
        if line in ready and _closed(line):
            return False
    return True


def _closed(line: int) -> bool:
    try:
        return not os.read(line, 512)
    except ConnectionResetError:  # The worker died before it had read what we told it.
        return True


def guard(line: int, command: list[str]) -> int:
    """Start the engine and see it to its end; the result is the exit status."""
    os.set_inheritable(line, False)
    me = os.getpid()
    wants_end: list[bool] = []
    wakeup, wakeup_in = os.pipe()
    os.set_blocking(wakeup_in, False)
    signal.set_wakeup_fd(wakeup_in, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: wants_end.append(True))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    engine = _start(command)
    born = look_up(engine.pid)
    with contextlib.suppress(OSError):  # If the worker is gone already, the wait below sees that.
        os.write(line, json.dumps([engine.pid, born.started_ticks if born else 0]).encode() + b"\n")
    try:
        if not _wait(line, wakeup, engine, wants_end):
            engine.kill()
            engine.wait()
    finally:
        kill_session(me, me)
    code = engine.returncode
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(guard(int(sys.argv[1]), sys.argv[2:]))
