"""The machine: what a figure was measured on, and whether it was quiet when the benchmark began."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Cores, memory, load and time; read before the benchmark loads the machine itself."""
    memory = next(
        int(line.split()[1]) // 1_048_576
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal")
    )
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": memory,
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
