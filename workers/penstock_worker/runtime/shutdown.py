"""Shutdown: at SIGTERM nothing new is taken, whoever holds something gives it back, and the process ends in time.

A SIGTERM is heard from the first claim on, also before Celery listens to it, which takes it a second or more: else the
process would die with slices in hand, and they would wait for their leases to run out. And it ends also while Redis
hangs: Celery's goodbye waits for answers from there, but once nothing is in hand, no slice and no waiting call, the
process needs Celery no more.

A signal handler runs in the middle of anything, even of something that holds a lock: all that it does here is one put
into a queue that may be put into from there. A thread that waits from the beginning does the rest.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import structlog

log = structlog.get_logger()

_LOOK_SECONDS: Final = 0.05
_CELERY_SECONDS: Final = 5.0


class Stoppable(Protocol):
    """What takes work by itself."""

    def stop(self) -> None: ...


class Holder(Protocol):
    """Who knows what is in hand."""

    @property
    def holds(self) -> bool: ...
    def drain(self) -> None: ...


class Shutdown:
    """Called at the first SIGTERM, and any number of times after that; `over` says that Celery has ended by itself."""

    def __init__(
        self,
        beat: Holder,
        poller: Stoppable,
        goodbye: Callable[[], None],
        leave: Callable[[int], Any] = os._exit,
        celery_seconds: float = _CELERY_SECONDS,
        also: Sequence[Holder] = (),
    ) -> None:
        self._holding = (beat, *also)
        self._poller = poller
        self._goodbye = goodbye
        self._leave = leave
        self._celery_seconds = celery_seconds
        self._told: queue.SimpleQueue[Callable[..., None] | None] = queue.SimpleQueue()
        self._was_told = False
        self._drained = threading.Event()
        self._over = threading.Event()
        threading.Thread(target=self._listen, name="ending", daemon=True).start()

    def __call__(self) -> None:
        """Take nothing new, and tell whoever holds something; returns at once, also in a signal handler."""
        self._tell(None)

    def _tell(self, handler: Callable[..., None] | None) -> None:
        self._was_told = True
        self._told.put(handler)

    def _listen(self) -> None:
        while True:
            handler = self._told.get()
            if handler is not None:
                threading.Thread(target=_pass_on, args=(handler,), name="pass-on", daemon=True).start()
            if not self._drained.is_set():
                self._poller.stop()
                for one in self._holding:
                    one.drain()
                self._drained.set()
                threading.Thread(target=self._end_anyway, name="end-anyway", daemon=True).start()

    def begun(self, within_seconds: float = 0.0) -> bool:
        """Say whether anybody told the process to end, waiting so long for it."""
        return self._was_told or self._drained.wait(within_seconds)

    def over(self) -> None:
        """Celery has ended: what is left is the process's own teardown, once whoever holds something was told."""
        self._drained.wait()
        self._over.set()

    def wait_until_empty(self) -> None:
        """Return once nothing is in hand; each of those who hold something has a grace of its own."""
        while self._holds:
            time.sleep(_LOOK_SECONDS)

    @property
    def _holds(self) -> bool:
        return any(one.holds for one in self._holding)

    def _end_anyway(self) -> None:
        while self._holds:
            if self._over.wait(_LOOK_SECONDS):
                return
        if self._over.wait(self._celery_seconds):
            return
        log.warning("celery_left_behind")  # its guard ends the engine, the kernel everything else
        self._goodbye()
        self._leave(0)

    def listen(self) -> None:
        """Until somebody else handles SIGTERM: begin at once, and send it again as soon as somebody does."""

        def handle(*_: Any) -> None:
            self._tell(handle)

        signal.signal(signal.SIGTERM, handle)


def _pass_on(handler: Callable[..., None]) -> None:
    """Send SIGTERM again to whoever handles it next."""
    while signal.getsignal(signal.SIGTERM) is handler:
        time.sleep(_LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
