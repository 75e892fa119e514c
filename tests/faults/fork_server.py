"""A fork server: it has imported what the platform's processes import, and each of them begins as its copy.

An API needs two seconds of a core for its imports, a worker one and a half, and a house has four processes that tests
kill and start again. What a copy runs is what `python -m MODULE` runs, with its own arguments and environment; only
`/proc/PID/cmdline` and `environ` are the server's.

    python -P fork_server.py SOCKET_FD           the server; it dies with the process that started it
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

MODULES: Final = (
    "penstock.app",
    "penstock.cli.commands.servers",
    "penstock.keeper",
    "penstock.store.revision",
    "penstock_worker.process",
    "typer",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.httptools_impl",
)
_PR_SET_PDEATHSIG: Final = 1


class Forked:
    """A process that the server made; what `subprocess.Popen` is for others."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server = server
        self.pid = pid

    def poll(self) -> int | None:
        """How it ended, or None."""
        return self._server.ended.get(self.pid)

    def wait(self, timeout: float) -> int:
        """How it ended; raises subprocess.TimeoutExpired after so many seconds."""
        with self._server.told:
            if not self._server.told.wait_for(lambda: self.pid in self._server.ended, timeout):
                raise subprocess.TimeoutExpired([str(self.pid)], timeout)
        return self._server.ended[self.pid]

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


class ForkServer:
    """This process's side of one."""

    def __init__(self) -> None:
        from penstock.stack.child import tie

        self._socket, theirs = socket.socketpair()
        with theirs:
            theirs.set_inheritable(True)
            command = [*tie(signal.SIGKILL), "-", sys.executable, "-P", __file__, str(theirs.fileno())]
            environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # a process that forks has one thread
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        self.told = threading.Condition()
        self.ended: dict[int, int] = {}
        """By pid, as `subprocess` says it."""
        self._started: list[int] = []
        self._one_at_a_time = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()
        atexit.register(self._process.kill)

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Forked:
        """Run `python -m` with these arguments in a copy of the server."""
        asked = {"arguments": list(arguments), "environment": dict(environment), "log": str(log)}
        with self._one_at_a_time, self.told:
            self._socket.sendall(json.dumps(asked).encode() + b"\n")
            assert self.told.wait_for(lambda: self._started, 600), "the fork server started nothing"
            return Forked(self, self._started.pop())

    def _listen(self) -> None:
        with self._socket.makefile("rb") as lines:
            for line in lines:
                news = json.loads(line)
                with self.told:
                    if "status" in news:
                        self.ended[news["pid"]] = news["status"]
                    else:
                        self.ended.pop(news["pid"], None)  # a pid that is used again
                        self._started.append(news["pid"])
                    self.told.notify_all()


@functools.cache
def shared() -> ForkServer:
    """The one of this process, started when it is first asked for."""
    return ForkServer()


def serve(control: socket.socket) -> dict[str, Any]:
    """Make copies until the other side goes. Only a copy returns, with what it was asked for."""
    with selectors.DefaultSelector() as events, control.makefile("rb") as lines:
        events.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in events.select():
                if key.data is None:
                    line = lines.readline()
                    if not line:
                        os._exit(0)
                    ours = os.getpid()
                    pid = os.fork()
                    if not pid:
                        _tie(ours)
                        return dict(json.loads(line))
                    events.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
                    _tell(control, pid=pid)
                else:
                    _, status = os.waitpid(key.data, 0)
                    events.unregister(key.fd)
                    os.close(key.fd)
                    _tell(control, pid=key.data, status=os.waitstatus_to_exitcode(status))


def _tell(control: socket.socket, **news: int) -> None:
    control.sendall(json.dumps(news).encode() + b"\n")


def _tie(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def run(arguments: list[str], environment: dict[str, str], log: str) -> None:
    """Be the process that was asked for."""
    with open(log, "ab") as file, open(os.devnull, "rb") as nothing:
        for target, source in enumerate((nothing, file, file)):
            os.dup2(source.fileno(), target)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments[1:]
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


def main() -> None:
    """Import, then serve; a copy goes on with what it is."""
    from penstock.uncollected import uncollected

    with uncollected():
        for name in MODULES:
            importlib.import_module(name)
    with socket.socket(fileno=int(sys.argv[1])) as control:
        asked = serve(control)
    run(**asked)


if __name__ == "__main__":
    main()
