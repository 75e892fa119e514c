"""Processes that a benchmark looks at from outside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import psutil


def family(pid: int) -> Iterator[psutil.Process]:
    """A process and its descendants, itself first."""
    parent = psutil.Process(pid)
    yield parent
    yield from parent.children(recursive=True)


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time that it took so far; 0 if it has ended."""
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0
