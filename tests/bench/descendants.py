"""Descendants: every process that a program has started, directly or not, for tests that nothing is left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil

_LOOK_SECONDS = 0.1
_END_SECONDS = 20.0


@dataclass
class Descendants:
    """Those that were seen so far. One that lives less than a look may be missed; an engine is not."""

    seen: set[psutil.Process] = field(default_factory=set)

    def named(self, text: str) -> list[psutil.Process]:
        """The living ones whose command line has this text."""
        found = []
        for process in list(self.seen):
            with suppress(psutil.Error):
                if any(text in part for part in process.cmdline()):
                    found.append(process)
        return found

    def left(self) -> list[str]:
        """The command lines of those that still live after a while."""
        _, alive = psutil.wait_procs(list(self.seen), timeout=_END_SECONDS)
        lines = []
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE:
                    lines.append(f"{process.pid}: {' '.join(process.cmdline()) or process.name()}")
        return lines


@contextmanager
def of(pid: int) -> Iterator[Descendants]:
    """Look at a program's descendants, again and again."""
    found, over = Descendants(), threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_SECONDS):
            with suppress(psutil.Error):
                found.seen.update(psutil.Process(pid).children(recursive=True))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
