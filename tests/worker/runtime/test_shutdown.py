"""A worker hears SIGTERM before Celery does, Celery hears it all the same, and a Celery that hangs is left behind."""

from __future__ import annotations

import concurrent.futures.thread
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from penstock_worker.runtime.shutdown import Shutdown

STARTING_UP = """
import signal, sys, time
from penstock_worker.runtime.shutdown import Shutdown
told = []
class Work:
    holds = True
    def stop(self):
        told.append("nothing new is taken")
    def drain(self):
        told.append("work is given back")
        print(*told, sep=", ", flush=True)
end = Shutdown(Work(), Work(), lambda: None)
end.listen()
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
        assert process.stdout.readline() == "nothing new is taken, work is given back\n"
        rest, _ = process.communicate("\n", timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert rest.splitlines() == ["celery listens", "nothing new is taken, work is given back, celery ends"]


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


class Work:
    """Something in hand until told otherwise, and what was done with it."""

    def __init__(self) -> None:
        self.holds = True
        self.told: list[str] = []
        self.left = threading.Event()
        self.drained = threading.Event()

    def stop(self) -> None:
        self.told.append("stop")

    def drain(self) -> None:
        self.told.append("drain")
        self.drained.set()

    def goodbye(self) -> None:
        self.told.append("goodbye")

    def leave(self, code: int) -> None:
        self.told.append(f"leave {code}")
        self.left.set()


def test_a_process_whose_celery_hangs_leaves_once_nothing_is_in_hand_and_not_before() -> None:
    work = Work()
    end = Shutdown(work, work, work.goodbye, work.leave, celery_seconds=0.05)
    assert not end.begun()
    end()
    end()
    assert end.begun()
    assert not work.left.wait(0.3), "something is in hand"
    work.holds = False
    assert work.left.wait(10)
    assert work.told == ["stop", "drain", "goodbye", "leave 0"]


class Pooled(Work):
    """Gives its work back by a thread pool, as a worker's status does."""

    def drain(self) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(super().drain)


def test_a_sigterm_in_the_middle_of_a_submit_ends_the_process_all_the_same() -> None:
    """Its handler runs in the thread that it interrupts, while that holds the lock of all thread pools."""
    work = Pooled()
    end = Shutdown(work, work, work.goodbye, work.leave, celery_seconds=0.05)
    with concurrent.futures.thread._global_shutdown_lock:
        end()
        assert end.begun()
        assert not work.drained.wait(0.2), "the pool waits for that lock"
    assert work.drained.wait(10)
    work.holds = False
    assert work.left.wait(10)


def test_a_process_whose_celery_ends_in_time_is_left_alone() -> None:
    work = Work()
    end = Shutdown(work, work, work.goodbye, work.leave, celery_seconds=0.05)
    end()
    end.over()
    work.holds = False
    assert not work.left.wait(0.3)
    assert work.told == ["stop", "drain"]


def test_a_process_with_a_call_inside_waits_for_it_as_for_a_slice() -> None:
    work, calls = Work(), Work()
    end = Shutdown(work, work, work.goodbye, work.leave, celery_seconds=0.05, also=[calls])
    end()
    assert calls.drained.wait(10)
    work.holds = False
    assert not work.left.wait(0.3), "a call is inside"
    empty = threading.Thread(target=end.wait_until_empty)
    empty.start()
    empty.join(0.1)
    assert empty.is_alive()
    calls.holds = False
    assert work.left.wait(10)
    empty.join(10)
    assert not empty.is_alive()
