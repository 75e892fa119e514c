"""Memory: what processes hold, in bytes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_KIB = 1_024


def of_processes(pids: Iterable[int]) -> int | None:
    """What these processes hold in RAM, shared pages by their part (Pss); None if the kernel does not say."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * _KIB
    return total or None
