"""The result of a benchmark: a JSON file that says on which machine, how quiet, with which options it was measured."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def begin(given: argparse.Namespace) -> dict[str, Any]:
    """The head of a result; made before the benchmark loads the machine itself."""
    memory = next(
        int(line.split()[1]) // 1_048_576
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal")
    )
    machine = {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": memory,
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return {"machine": machine, "asked": {name: str(value) for name, value in vars(given).items()}}


def write(path: Path, found: dict[str, Any]) -> None:
    """Write it; what is no number becomes null, which every reader of JSON knows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_numbers(found), indent=1, allow_nan=False) + "\n")


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _numbers(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
