"""A bound on the time that one row's own work may take: a template's loops, a pattern that tries everything."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

ROW_SECONDS: Final = 5.0
"""A row that takes longer would never end; others take well below a millisecond."""


class TookTooLong(Exception):
    """It took longer than it may."""


@contextmanager
def at_most(seconds: float = ROW_SECONDS) -> Iterator[None]:
    """Raise TookTooLong inside of the `with` once it has taken so long; in the main thread only, where signals come.

    Python looks for signals between two steps, and so does `re` while it tries.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TookTooLong(f"it takes longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
