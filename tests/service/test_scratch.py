"""Scratch folders go away with their work, and with the process that was killed at it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from penstock.service.core import scratch

HOLDING = """
import sys
from pathlib import Path
from penstock.service.core import scratch
with scratch.folder(Path(sys.argv[1]), "validate-") as folder:
    (folder / "input").write_bytes(b"some bytes")
    print(folder, flush=True)
    sys.stdin.read()
"""


def holding(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that works in a folder, and the folder."""
    command = [sys.executable, "-c", HOLDING, str(parent)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def test_a_folder_goes_away_with_what_is_in_it_even_if_its_work_fails(tmp_path: Path) -> None:
    def work() -> None:
        with scratch.folder(tmp_path, "assemble-") as folder:
            (folder / "answers").write_bytes(b"some")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        work()
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_killed_process_is_removed_by_the_next_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    foreign = tmp_path / "validate-somebody-elses"
    foreign.mkdir()
    living, in_use = holding(tmp_path)
    killed, left = holding(tmp_path)
    try:
        killed.kill()
        killed.communicate()
        assert left.is_dir()
        with scratch.folder(tmp_path, "validate-") as mine:
            assert sorted(tmp_path.iterdir()) == sorted([foreign, in_use, mine])
            assert (in_use / "input").read_bytes() == b"some bytes"
        living.communicate(timeout=10)
        assert (living.returncode, list(tmp_path.iterdir())) == (0, [foreign])
    finally:
        living.kill()
        living.communicate()
