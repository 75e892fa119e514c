"""What is tracked is the project's alone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_no_link_is_tracked() -> None:
    """One that leads out of the tree works where it was made, and nowhere else: an environment was committed as one."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("what is tracked only a git checkout knows: this tree came as an archive, or git is not installed")
    listed = subprocess.run(["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line for line in listed.splitlines() if line.startswith("120000")] == []
