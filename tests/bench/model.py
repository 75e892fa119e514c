"""The model of a benchmark: a folder that was given, or the tiny one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def source(given: Path | None, folder: Path) -> str:
    """Where the model is; the tiny one is made in this folder, by a process of its own: torch would stay in ours."""
    if given is not None:
        return str(given.resolve())
    made = str(folder / "tiny")
    subprocess.run([sys.executable, "-m", "penstock_worker.engine.tiny", made], check=True, capture_output=True)
    return made
