"""A benchmark that is stopped, or dies, leaves no engine behind: neither its own nor what that has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bench import descendants, guarded, stop
from bench.descendants import Descendants

TESTS = Path(__file__).parents[1]
# As vLLM's: it does not heed SIGTERM, and a process of it has a session of its own.
ENGINE = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "engine-core"], start_new_session=True)
time.sleep(600)
"""
BENCHMARK = f"""
import os, sys, time
from pathlib import Path
from bench import guarded, stop
def main():
    engine = [sys.executable, "-c", {ENGINE!r}]
    with guarded.running("theirs", engine, os.environ, Path(sys.argv[1]), grace_seconds=0.5):
        time.sleep(600)
stop.orderly(main)
"""


def until(look: Callable[[], object], seconds: float = 100.0) -> None:
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, "it did not come so far"
        time.sleep(0.05)


@contextmanager
def started(*command: str) -> Iterator[tuple[subprocess.Popen[bytes], Descendants]]:
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    process = subprocess.Popen([sys.executable, *command], env=environment, stdout=subprocess.DEVNULL)
    try:
        with descendants.of(process.pid) as seen:
            yield process, seen
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("ends_with", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_engine_and_what_it_started_end_with_the_benchmark(tmp_path: Path, ends_with: signal.Signals) -> None:
    with started("-c", BENCHMARK, str(tmp_path)) as (process, seen):
        until(lambda: seen.named("engine-core"))
        process.send_signal(ends_with)
        assert process.wait(20) == (-signal.SIGKILL if ends_with is signal.SIGKILL else stop.STOPPED)
        assert seen.left() == []


@pytest.mark.slow
def test_a_benchmark_that_is_stopped_ends_its_platform_and_keeps_what_it_found(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    with started(
        "-m", "bench.lanes", "--engine", "echo", "--parts", "lanes", "--in-flight", "2", "--warm-up", "5",
        "--seconds", "60", "--json", str(found),
    ) as (process, seen):  # fmt: skip
        until(lambda: seen.named("echo_server") and seen.named("penstock.cli.main"))
        process.terminate()
        assert process.wait(60) == stop.STOPPED
        assert seen.left() == []
    assert found.exists()


def test_a_platform_imports_from_where_it_did_but_not_from_where_the_benchmarks_are() -> None:
    tests = str(TESTS)
    found = guarded.without_benchmarks({"PYTHONPATH": f"{tests}:/packages", "HOME": "/home"})
    assert found == {"PYTHONPATH": "/packages", "HOME": "/home"}
    assert guarded.without_benchmarks({"PYTHONPATH": tests}) == {}
