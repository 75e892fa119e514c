"""A worker hears SIGTERM before Celery does, and Celery hears it all the same."""

from __future__ import annotations

import signal
import subprocess
import sys

STARTING_UP = """
import signal, sys, time
from penstock_worker import ending
told = []
def on_ending():
    told.append("work is given back")
    print(*told, flush=True)
ending.listen(on_ending)
print("in work", flush=True)
sys.stdin.readline()
def celerys(*_):
    told.append("celery ends")
signal.signal(signal.SIGTERM, celerys)
print("celery listens", flush=True)
while "celery ends" not in told:
    time.sleep(0.01)
time.sleep(0.2)
print(*told, sep=", ")
"""


def test_a_sigterm_before_celery_listens_is_heard_at_once_and_told_to_celery_once_it_does() -> None:
    command = [sys.executable, "-c", STARTING_UP]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "in work\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "work is given back\n"
        rest, _ = process.communicate("\n", timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert rest.splitlines() == ["celery listens", "work is given back, celery ends"]


def test_a_sigterm_that_celery_hears_first_is_told_once() -> None:
    command = [sys.executable, "-c", STARTING_UP]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "in work\n"
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "celery listens\n"
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, rest) == (0, "celery ends\n")
