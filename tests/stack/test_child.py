"""Children are restarted with backoff, stopped for certain, and never outlive the process that started them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.stack.child import Child, last_lines

FOREVER = [sys.executable, "-c", "import signal; signal.pause()"]


def gone(pid: int, seconds: float = 20.0) -> bool:
    """Whether this process has ended, or ends within these seconds."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with open(pidfd) as file:
        return bool(select.select([file], [], [], seconds)[0])


def read_line(log: Path, child: Child) -> str:
    """The first line of a log; the child writes it before it does anything else."""
    while not (text := log.read_text()).endswith("\n"):
        assert not child.wait(0.02), text
    return text.strip()


def test_a_child_that_was_killed_starts_again_after_a_delay_that_doubles(tmp_path: Path) -> None:
    with Child("c", FOREVER, log=tmp_path / "log", first_delay_seconds=1, longest_delay_seconds=3) as child:
        now = 0.0
        pids = [child.pid]
        for delay in (1, 2, 3, 3):
            os.kill(child.pid or 0, signal.SIGKILL)
            assert child.wait(20)
            assert f"was killed by SIGKILL; starts again in {delay} s" in (child.tend(now) or "")
            assert child.tend(now + delay - 0.1) is None
            now += delay
            assert child.tend(now) == "c started again"
            pids.append(child.pid)
    assert len(set(pids)) == 5
    assert child.restarts == 4
    assert all(gone(pid or 0) for pid in pids)


def test_a_child_that_lived_long_starts_again_after_the_first_delay(tmp_path: Path) -> None:
    with Child("c", FOREVER, log=tmp_path / "log", first_delay_seconds=1, settled_seconds=0) as child:
        for now in (10.0**9, 2 * 10.0**9):
            os.kill(child.pid or 0, signal.SIGKILL)
            assert child.wait(20)
            assert "starts again in 1 s" in (child.tend(now) or "")
            child.tend(now + 1)


def test_a_living_child_is_left_alone(tmp_path: Path) -> None:
    with Child("c", FOREVER, log=tmp_path / "log") as child:
        assert child.tend(1.0) is None
        assert child.pid is not None


def test_a_child_that_ignores_the_stop_signal_is_killed_after_its_grace(tmp_path: Path) -> None:
    with Child("c", ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 9; done"], log=tmp_path / "log",
               grace_seconds=0.1) as child:  # fmt: skip
        read_line(tmp_path / "log", child)
        pid = child.pid or 0
    assert gone(pid)
    assert child.pid is None


def test_what_a_child_left_in_its_group_dies_with_it(tmp_path: Path) -> None:
    with Child("c", ["sh", "-c", "sleep 600 & echo $!; wait"], log=tmp_path / "log") as child:
        grandchild = int(read_line(tmp_path / "log", child))
        os.kill(child.pid or 0, signal.SIGKILL)
        assert child.wait(20)
        assert gone(grandchild)


def test_children_die_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    program = (
        "import signal, sys; from pathlib import Path; from penstock.stack.child import Child\n"
        f"child = Child('c', [sys.executable, '-c', 'import signal; print(1, flush=True); signal.pause()'],"
        f" log=Path({str(tmp_path / 'log')!r}))\n"
        "child.start(); print(child.pid, flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    assert gone(pid)


def test_a_program_that_does_not_exist_is_said_in_the_log(tmp_path: Path) -> None:
    with Child("c", ["/nowhere/at-all"], log=tmp_path / "log") as child:
        assert child.wait(20)
        assert "ended with status 1" in (child.tend(0.0) or "")
    assert last_lines(tmp_path / "log") == "/nowhere/at-all: No such file or directory"


def test_a_child_reads_what_is_given_on_its_standard_input(tmp_path: Path) -> None:
    with Child("c", ["sh", "-c", "read line; echo got $line"], log=tmp_path / "log", stdin=b"a secret\n") as child:
        assert child.wait(20)
    assert last_lines(tmp_path / "log") == "got a secret"


def test_a_log_that_grew_large_is_turned_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.stack.child.LOG_LIMIT_BYTES", 10)
    log = tmp_path / "c.log"
    log.write_text("older than everything else\n")
    with Child("c", ["echo", "new"], log=log) as child:
        assert child.wait(20)
    assert log.read_text() == "new\n"
    assert log.with_suffix(".old").read_text() == "older than everything else\n"


def test_a_log_that_grows_large_is_turned_over_while_its_process_writes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.stack.child.LOG_LIMIT_BYTES", 10)
    log, go = tmp_path / "c.log", tmp_path / "go"
    script = f"echo a first long line; until [ -e {go} ]; do sleep 0.02; done; echo then"
    with Child("c", ["sh", "-c", script], log=log) as child:
        read_line(log, child)
        assert child.tend(0.0) is None
        assert log.with_suffix(".old").read_text() == "a first long line\n"
        go.touch()
        assert child.wait(20)
    assert log.read_bytes() == b"then\n"
