"""Device memory: how much of the GPUs' is in use, where that can be read."""

from __future__ import annotations

import shutil
import subprocess
from typing import Final

_QUERY: Final = ("--query-gpu=memory.used", "--format=csv,noheader,nounits")
_TIMEOUT_SECONDS: Final = 10.0
_MIB: Final = 1_048_576


def used_bytes() -> int | None:
    """Bytes in use on all GPUs that are seen here, by nvidia-smi; None where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        done = subprocess.run([program, *_QUERY], capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    mib = None if done.returncode else read_used(done.stdout)
    return None if mib is None else mib * _MIB


def read_used(listing: str) -> int | None:
    """Read nvidia-smi's list, MiB a line, as their sum; None if one is none ([N/A])."""
    rows = [row.strip() for row in listing.splitlines() if row.strip()]
    return sum(map(int, rows)) if rows and all(row.isdigit() for row in rows) else None
