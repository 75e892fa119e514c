"""Liveness checks: who asked, after a transport error, whether the engine lives, and waits for the next probe."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import NamedTuple


class LivenessCheck(NamedTuple):
    """One question: until when it can wait, and where the answer goes."""

    until: float
    answer: Future[bool]


class LivenessChecks:
    """Those who wait. They come from any thread; the supervisor's thread takes and answers them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[LivenessCheck] = []

    def add(self, timeout_seconds: float) -> Future[bool]:
        """Ask; the answer comes with the next probe that begins from now on."""
        answer: Future[bool] = Future()
        with self._lock:
            self._waiting.append(LivenessCheck(time.monotonic() + timeout_seconds, answer))
        return answer

    def take(self) -> list[LivenessCheck]:
        """Everybody who waits now; later askers get a later probe."""
        with self._lock:
            taken, self._waiting = self._waiting, []
        return taken

    def ask_on(self, askers: list[LivenessCheck]) -> bool:
        """Keep those who can still wait for a better probe, say no to the others; True if some are kept."""
        now = time.monotonic()
        kept = [asker for asker in askers if asker.until > now]
        with self._lock:
            self._waiting = kept + self._waiting
        settle([asker for asker in askers if asker.until <= now], False)
        return bool(kept)


def settle(askers: list[LivenessCheck], verdict: bool) -> None:
    """Answer askers; some may have given up meanwhile."""
    for asker in askers:
        if asker.answer.set_running_or_notify_cancel():
            asker.answer.set_result(verdict)
