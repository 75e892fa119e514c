"""Memory: what an engine takes, in bytes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_KIB = 1_024
_MIB = 1_048_576


def of_gpus() -> int | None:
    """What is in use on all GPUs together, by nvidia-smi; None if it can't say."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    used = [int(line) for line in done.stdout.split() if line.isdigit()]
    return sum(used) * _MIB if used and not done.returncode else None


def of_processes(pids: Iterable[int]) -> int | None:
    """What these processes hold in RAM, shared pages by their part (Pss); None if the kernel does not say."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * _KIB
    return total or None
