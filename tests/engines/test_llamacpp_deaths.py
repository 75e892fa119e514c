"""The real llama.cpp dies, hangs and is poisoned under a batch: no line is lost, none comes twice.

Poison is played from outside: whoever works on the line that is called so is killed with SIGKILL, which stands in for a
kernel that crashes on some input. Everything else of the death is llama.cpp's own. A loop that stands still while the
HTTP server answers is made with ptrace, which stops one thread alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from e2e.live import chat
from faults.house import House
from faults.load import check
from openai.types import Batch
from worker.engines import ended

from penstock_worker.engine.process import probe

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]

LINES = 120
TOKENS = 40
POISON = "please POISON it"


@pytest.fixture(scope="module")
def house(
    shared_database_url: str, valkey_url: str, tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path
) -> Iterator[House]:
    """One worker on llama.cpp, which shows what its sequences work on; short leases, small slices."""
    with House(
        shared_database_url,
        valkey_url,
        tmp_path_factory.mktemp("llamacpp"),
        engine="llamacpp",
        source=str(tiny_gguf),
        engine_arguments=["--threads=1", "--parallel=8", "--ctx-size=16384"],
        environment={"LLAMA_SERVER_SLOTS_DEBUG": "1"},
        lease_seconds="5",
        beat_seconds="1",
        tick_seconds="1",
        worker_gone_seconds="4",
        flush_seconds="0.2",
        slice_lines="30",
        engine_stuck_seconds="4",
    ) as house:
        yield house


@pytest.fixture(autouse=True)
def unbroken(house: House) -> Iterator[None]:
    yield
    check(house)


def lines(name: str, tokens: int = TOKENS) -> list[dict[str, Any]]:
    more = {"temperature": 0, "max_tokens": tokens, "ignore_eos": True}
    return [chat(f"{name}-{n}", f"{name}: question {n} of the river", **more) for n in range(LINES)]


def half_done(house: House, batch: Batch) -> None:
    """Wait until some lines are recorded, and many are not."""
    query = "select coalesce(sum(completed), 0) from slices where batch = %s"
    house.until(lambda: 8 <= house.ask(query, batch.id) < LINES - 20, "some lines are answered, others in flight", 60)


def each_answer_once(house: House, batch: Batch, name: str, but: int | None = None, tokens: int = TOKENS) -> None:
    """Wait for the end: every line once, in order, as long as it was to be; counts and usage add up."""
    end = house.client.ended(batch.id, 240)
    assert end.status == "completed", house.tell()
    output = house.client.file(end.output_file_id)
    assert [line["custom_id"] for line in output] == [f"{name}-{n}" for n in range(LINES) if n != but]
    usages = [line["response"]["body"]["usage"] for line in output]
    assert {usage["completion_tokens"] for usage in usages} == {tokens}
    assert end.request_counts
    failed = 0 if but is None else 1
    assert (end.request_counts.completed, end.request_counts.failed) == (LINES - failed, failed)
    assert end.usage
    assert end.usage.output_tokens == sum(usage["completion_tokens"] for usage in usages)
    errors = house.client.file(end.error_file_id)
    assert [(line["custom_id"], line["error"]["code"]) for line in errors] == [
        (f"{name}-{but}", "engine_crash") for _ in range(failed)
    ]


def charged(house: House, batch: Batch) -> int:
    """How often its slices' holders fell silent; that an engine died is none of the slices' fault."""
    return int(house.ask("select sum(crashes) from slices where batch = %s", batch.id))


def starts(house: House) -> int:
    log = next((house.logs / "gpu-1").glob("engine-*.log"))
    return log.read_text(errors="replace").count("--- start ")


def engine_pid(house: House) -> int:
    """The engine itself; its guard is before it."""
    found = house.until(lambda: len(seen := house.engine("gpu-1")) == 2 and seen, "an engine runs", 60)
    return int(found[1].pid)


def test_kill_9_of_the_engine_in_the_middle_of_slices_loses_no_line_and_charges_none(house: House) -> None:
    before = starts(house)
    batch = house.client.submit(lines("killed"))
    half_done(house, batch)
    os.kill(engine_pid(house), signal.SIGKILL)
    each_answer_once(house, batch, "killed")
    assert charged(house, batch) == 0
    assert starts(house) - before == 1


def test_kill_9_of_the_worker_takes_its_engine_along_and_the_next_one_goes_on(house: House) -> None:
    batch = house.client.submit(lines("alone"))
    half_done(house, batch)
    engine = house.engine("gpu-1")
    house.kill("gpu-1")
    assert all(ended(process) for process in engine)
    house.start("gpu-1")
    each_answer_once(house, batch, "alone")


def test_an_engine_that_is_stopped_is_ended_and_its_lines_are_answered_by_the_next(house: House) -> None:
    """SIGSTOP: neither its health nor its load is told any more, which the watchdog takes for a hang."""
    before = starts(house)
    batch = house.client.submit(lines("stopped"))
    half_done(house, batch)
    os.kill(engine_pid(house), signal.SIGSTOP)
    each_answer_once(house, batch, "stopped")
    assert starts(house) - before == 1


_STOP_A_THREAD = """
import ctypes, os, sys
SEIZE, INTERRUPT, ALL_THREADS = 0x4206, 0x4207, 0x40000000
ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
thread = int(sys.argv[1])
for request in (SEIZE, INTERRUPT):
    if ptrace(request, thread, None, None) == -1:
        sys.exit(os.strerror(ctypes.get_errno()))
print("stopped", flush=True)
while True:
    _, status = os.waitpid(thread, ALL_THREADS)
    if os.WIFSIGNALED(status) or os.WIFEXITED(status):
        break
"""


@contextmanager
def one_thread_stopped(pid: int) -> Iterator[None]:
    """Stop the thread that computed most, but for Python's own: llama.cpp's loop. Its HTTP server has others."""

    def ticks(thread: str) -> int:
        fields = Path(f"/proc/{pid}/task/{thread}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[11]) + int(fields[12])

    loop = max((thread for thread in os.listdir(f"/proc/{pid}/task") if int(thread) != pid), key=ticks)
    tracer = subprocess.Popen([sys.executable, "-c", _STOP_A_THREAD, loop], stdout=subprocess.PIPE, text=True)
    try:
        assert tracer.stdout
        assert tracer.stdout.readline() == "stopped\n"
        yield
    finally:
        tracer.kill()
        tracer.communicate()


def test_a_loop_that_stands_still_while_its_server_answers_is_a_hang(house: House) -> None:
    before = starts(house)
    batch = house.client.submit(lines("stuck", 300))  # the tracer needs a moment
    half_done(house, batch)
    with one_thread_stopped(engine_pid(house)):
        assert probe.healthy(house.engine_socket("gpu-1"), 5.0)
        each_answer_once(house, batch, "stuck", tokens=300)
    assert starts(house) - before == 1


@contextmanager
def killing(house: House, text: str) -> Iterator[None]:
    """Kill the engine whenever one of its sequences works on this text."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            answer = probe.get(house.engine_socket("gpu-1"), "/slots", 1.0)
            if answer is None or answer[0] != 200:
                time.sleep(0.005)
                continue
            for one in json.loads(answer[1].decode(errors="replace")):
                if one["is_processing"] and text in one.get("prompt", "") and len(seen := house.engine("gpu-1")) == 2:
                    os.kill(seen[1].pid, signal.SIGKILL)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_poison_line_costs_four_engines_at_most_and_its_neighbours_are_answered(house: House) -> None:
    before = starts(house)
    asked = lines("poisoned")
    asked[50]["body"] |= {"messages": [{"role": "user", "content": POISON}], "max_tokens": 1_900}
    with killing(house, POISON):
        batch = house.client.submit(asked)
        each_answer_once(house, batch, "poisoned", but=50)
    assert charged(house, batch) == 0
    assert 0 < starts(house) - before <= 4
