"""Failpoints do what their spec says at the pass it names, in a real process; every name is a place in the code."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from penstock import failpoint

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "platform").rglob("*.py"), *(ROOT / "workers").rglob("*.py")])
PASSING = """
import sys
from penstock.failpoint import arm, failpoint
arm(sys.argv[1])
for number in range(1, 5):
    failpoint("slice.claimed")
    failpoint("segment.written")
    print(number, flush=True)
"""


def passing(spec: str) -> subprocess.Popen[str]:
    """A process that passes two failpoints four times in turn, and says after which turn it is."""
    command = [sys.executable, "-c", PASSING, spec]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def outcome(spec: str) -> tuple[int, str, str]:
    """How such a process ended, what it said, and its errors."""
    process = passing(spec)
    out, err = process.communicate(timeout=20)
    return process.returncode, out.replace("\n", ""), err


@pytest.mark.parametrize(
    ("spec", "status", "turns"),
    [
        ("", 0, "1234"),
        ("slice.claimed=kill", -signal.SIGKILL, ""),
        ("slice.claimed=kill@3", -signal.SIGKILL, "12"),
        ("slice.claimed=kill@5", 0, "1234"),
        ("slice.claimed=kill@4,segment.written=kill@2", -signal.SIGKILL, "1"),
        ("hint.committed=kill", 0, "1234"),
    ],
)
def test_a_process_is_killed_at_the_pass_that_its_spec_names(spec: str, status: int, turns: str) -> None:
    assert outcome(spec)[:2] == (status, turns)


def test_a_death_says_first_where_it_happens() -> None:
    told = '{"event": "failpoint", "name": "segment.written", "action": "kill"}\n'
    assert outcome("segment.written=kill@2")[2] == told


def test_a_stopped_process_goes_on_at_sigcont_and_is_not_stopped_again() -> None:
    process = passing("slice.claimed=stop@2")
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out.split()) == (0, ["1", "2", "3", "4"])


def test_a_process_waits_as_long_as_its_spec_says_and_once() -> None:
    began = time.monotonic()
    assert outcome("segment.written=sleep:0.7@2")[:2] == (0, "1234")
    assert time.monotonic() - began >= 0.7


@pytest.mark.parametrize(
    "spec",
    [
        "nowhere=kill",
        "slice.claimed",
        "slice.claimed=",
        "slice.claimed=die",
        "slice.claimed=kill@0",
        "slice.claimed=kill@-1",
        "slice.claimed=kill@x",
        "slice.claimed=kill@",
        "slice.claimed=sleep",
        "slice.claimed=sleep:-1",
        "slice.claimed=sleep:soon",
        "slice.claimed=kill:1",
        " slice.claimed=kill",
        "slice.claimed=kill@1,slice.claimed=stop@2",
    ],
)
def test_a_spec_that_says_nothing_sensible_ends_the_process_at_its_start(spec: str) -> None:
    status, turns, errors = outcome(spec)
    assert (status, turns) == (1, "")
    assert "ValueError: PENSTOCK_FAILPOINTS: " in errors


def placed() -> Counter[str]:
    """How often the code passes each failpoint, by its name."""
    found: Counter[str] = Counter()
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "failpoint":
                assert isinstance(node.args[0], ast.Constant), f"{file}: a failpoint is named by a word"
                found[node.args[0].value] += 1
    return found


def test_every_failpoint_in_the_code_has_a_name_with_a_meaning() -> None:
    assert not set(placed()) - set(failpoint.NAMES)


def test_every_named_failpoint_is_passed_somewhere() -> None:
    assert not set(failpoint.NAMES) - set(placed())
