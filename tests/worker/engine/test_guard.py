"""No process of an engine outlives its guard's line to the worker."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from e2e.live import until
from worker.engines import ended, worker_like

from penstock_worker.engine.process import guard as guard_module
from penstock_worker.engine.process.guard import Process, kill, look_up


def start(script: str) -> tuple[subprocess.Popen[str], socket.socket, Process]:
    """A guard over a shell script that first prints the pid of a child: guard, our end of its line, that child."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-S", "-E", guard_module.__file__, str(theirs.fileno()), "sh", "-c", script]
    guard = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, pass_fds=(theirs.fileno(),), start_new_session=True
    )
    theirs.close()
    assert guard.stdout
    child = look_up(int(guard.stdout.readline()))
    assert child
    return guard, ours, child


def finish(guard: subprocess.Popen[str], line: socket.socket) -> int:
    """Close the line and wait for the guard."""
    line.close()
    status = guard.wait(10)
    assert guard.stdout
    guard.stdout.close()
    return status


def test_the_end_of_the_line_kills_the_engine_and_its_children() -> None:
    guard, line, child = start("sleep 1000 & echo $!; exec sleep 1000")
    assert finish(guard, line) == 128 + 9
    assert ended(child)


def test_a_child_that_fled_into_its_own_session_is_killed_too() -> None:
    guard, line, child = start("setsid sleep 1000 & echo $!; exec sleep 1000")
    finish(guard, line)
    assert ended(child)


def test_the_child_of_one_whose_first_thread_has_ended_is_killed_too(tmp_path: Path) -> None:
    """The kernel calls such a process a zombie; vLLM's server is one for a moment as it is killed."""
    program = tmp_path / "program.py"
    program.write_text(
        "import ctypes, platform, subprocess, threading, time\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        "threading.Thread(target=time.sleep, args=(1000,)).start()\n"
        "print(child.pid, flush=True)\n"
        "ctypes.CDLL(None).syscall(60 if platform.machine() == 'x86_64' else 93, 0)  # exit, of this thread alone\n"
    )
    guard, line, child = start(f"setsid {sys.executable} -S {program} & exec sleep 1000")
    parent = Path(f"/proc/{child.parent}/stat")
    until(lambda: parent.read_text().rpartition(")")[2].split()[0] == "Z", "its first thread has ended")
    assert look_up(child.parent), "it lives"
    finish(guard, line)
    assert ended(child)
    assert look_up(child.parent) is None


def test_what_a_dead_engine_leaves_behind_is_killed_and_its_status_is_handed_on() -> None:
    guard, line, child = start("trap 'exit 7' USR1; sleep 1000 & echo $!; wait")
    engine, _ = json.loads(line.recv(4096))
    os.kill(engine, signal.SIGUSR1)  # not before its child was seen
    assert guard.wait(10) == 7
    assert ended(child)
    finish(guard, line)


def test_the_guard_tells_the_engines_pid_and_start_time() -> None:
    guard, line, _ = start("echo $$; exec sleep 1000")
    pid, ticks = json.loads(line.recv(4096))
    engine = look_up(pid)
    assert engine
    assert engine.started_ticks == ticks
    finish(guard, line)


def test_sigterm_is_passed_on_and_the_engine_ends_in_its_own_way() -> None:
    guard, line, _ = start("trap 'exit 3' TERM; sleep 1000 & echo $!; wait")
    guard.terminate()
    assert guard.wait(10) == 3
    finish(guard, line)


def test_a_killed_guard_takes_the_engines_first_process_with_it() -> None:
    guard, line, engine = start("echo $$; exec sleep 1000")
    guard.kill()
    assert ended(engine)
    finish(guard, line)


def test_another_process_with_the_same_pid_is_not_killed() -> None:
    sleeper = subprocess.Popen(["sleep", "1000"])
    now = look_up(sleeper.pid)
    assert now
    assert not kill(Process(now.pid, now.started_ticks - 1))
    assert sleeper.poll() is None
    assert kill(now)
    assert sleeper.wait(5) == -9


def test_kill_9_of_the_worker_takes_its_engine_along(short_dir: Path) -> None:
    folder = short_dir / "f1b"
    with worker_like("echo", "echo", "", folder) as worker:
        assert len(worker.engine) == 2
        os.kill(worker.process.pid, 9)
        for process in worker.engine:
            assert ended(process, 5.0)
        assert look_up(worker.bystander.pid) is not None
    with worker_like("echo", "echo", "", folder) as again:
        assert len(again.engine) == 2
