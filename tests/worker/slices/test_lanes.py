"""Lanes on a real Celery worker: strictly in order, nothing taken ahead, and hints that never hurt who says them."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest
import redis as redis_client
from prometheus_client import REGISTRY

from penstock.domain.work import hint
from penstock.domain.work.lane import LANES, Lane, generate_queue
from penstock.stack.ports import free_port
from penstock.wire.hints import Hinter

MODEL = "org/Some Model"
QUEUES = [generate_queue(MODEL, lane) for lane in LANES]
R = TypeVar("R")

# The worker's own Celery app and the way it consumes; only what a task does is the test's: it notes that it runs,
# and ends when told to.
WORKER = """
import os, redis
from penstock_worker.runtime import celery_app as app
server = redis.Redis.from_url(os.environ["PENSTOCK_REDIS_URL"])
def run(lane):
    server.rpush("ran", str(lane))
    server.blpop("go")
    server.rpush("ended", str(lane))
    return f"ran {lane}"
app.doers["generate"] = run
app.consume("lanes", os.environ["QUEUES"].split(","), int(os.environ["THREADS"]), lambda: server.rpush("ending", "1"))
"""


def until(look: Callable[[], R], what: str, seconds: float = 30.0) -> R:
    end = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < end, f"after {seconds:g} s not yet: {what}"
        time.sleep(0.01)
    return seen


@pytest.fixture
def server(redis_url: str) -> Iterator[redis_client.Redis]:
    with redis_client.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def hinter(redis_url: str) -> Iterator[Hinter]:
    hinter = Hinter(redis_url, 1.0)
    yield hinter
    hinter.close()


@contextmanager
def worker(redis_url: str, threads: int) -> Iterator[subprocess.Popen[bytes]]:
    """A Celery worker process on the three queues of one model, in lane order."""
    environment = os.environ | {
        "PENSTOCK_REDIS_URL": redis_url,
        "QUEUES": ",".join(QUEUES),
        "THREADS": str(threads),
    }
    process = subprocess.Popen([sys.executable, "-c", WORKER], env=environment, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def waiting(server: redis_client.Redis) -> list[int]:
    """Messages in the lists, by lane, most urgent first."""
    return [server.llen(queue) for queue in QUEUES]


def ran(server: redis_client.Redis) -> list[str]:
    return server.lrange("ran", 0, -1)


def unsaid() -> float:
    return REGISTRY.get_sample_value("penstock_hints_unsaid_total") or 0.0


def test_a_busy_worker_takes_nothing_ahead_and_then_serves_the_lanes_strictly_in_order(
    redis_url: str, server: redis_client.Redis, hinter: Hinter
) -> None:
    with worker(redis_url, threads=1):
        hinter.say([hint.generate(MODEL, Lane.FLEX)])
        until(lambda: ran(server) == ["flex"], "the worker is busy")
        for lane, count in ((Lane.FLEX, 6), (Lane.STANDARD, 4), (Lane.PRIORITY, 3)):
            hinter.say([hint.generate(MODEL, lane)] * count)
        until(lambda: waiting(server) == [3, 4, 6], "all thirteen stay in their lists")
        server.rpush("go", *range(14))
        until(lambda: server.llen("ended") == 14, "all have run")
        assert ran(server) == ["flex"] + ["priority"] * 3 + ["standard"] * 4 + ["flex"] * 6
        assert waiting(server) == [0, 0, 0]


def test_a_worker_of_several_threads_takes_as_many_and_no_more(
    redis_url: str, server: redis_client.Redis, hinter: Hinter
) -> None:
    with worker(redis_url, threads=3):
        hinter.say([hint.generate(MODEL, Lane.STANDARD)] * 8)
        until(lambda: len(ran(server)) == 3 and waiting(server) == [0, 5, 0], "three run, five stay")
        hinter.say([hint.generate(MODEL, Lane.PRIORITY)])
        until(lambda: waiting(server) == [1, 5, 0], "the urgent one waits in its list too")
        server.rpush("go", 1)
        until(lambda: len(ran(server)) == 4, "one ended, one began")
        assert ran(server)[3] == "priority"
        assert waiting(server) == [0, 5, 0]
        server.rpush("go", *range(8))
        until(lambda: server.llen("ended") == 9, "all have run")


def test_a_worker_that_is_told_to_end_finishes_what_runs_and_leaves_the_rest(
    redis_url: str, server: redis_client.Redis, hinter: Hinter
) -> None:
    with worker(redis_url, threads=1) as process:
        hinter.say([hint.generate(MODEL, Lane.STANDARD)] * 3)
        until(lambda: len(ran(server)) == 1 and waiting(server) == [0, 2, 0], "one runs")
        process.terminate()
        until(lambda: server.llen("ending"), "it heard")
        server.rpush("go", 1)
        assert process.wait(20) == 0
        assert server.llen("ended") == 1
        assert waiting(server) == [0, 2, 0]


def test_hints_for_another_model_are_not_heard(redis_url: str, server: redis_client.Redis, hinter: Hinter) -> None:
    with worker(redis_url, threads=1):
        hinter.say([hint.generate("org/some-model", Lane.PRIORITY), hint.generate(MODEL, Lane.FLEX)])
        until(lambda: ran(server) == ["flex"], "its own came")
        assert server.llen(generate_queue("org/some-model", Lane.PRIORITY)) == 1


def test_hints_that_were_said_before_a_close_are_published(redis_url: str, server: redis_client.Redis) -> None:
    hinter = Hinter(redis_url, 1.0)
    hinter.say([hint.validate(f"batch_{n}") for n in range(50)])
    hinter.close()
    assert server.llen(hint.VALIDATE_QUEUE) == 50


def test_a_hinter_whose_redis_is_away_returns_at_once_and_counts() -> None:
    before = unsaid()
    hinter = Hinter(f"redis://127.0.0.1:{free_port()}/0", 0.5)
    began = time.monotonic()
    for _ in range(3):
        hinter.say([hint.generate(MODEL, lane) for lane in LANES])
    assert time.monotonic() - began < 0.2
    hinter.close()
    assert unsaid() - before == 9


def test_a_hinter_whose_redis_does_not_answer_gives_up_in_its_own_thread() -> None:
    before = unsaid()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        hinter = Hinter(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", 0.3)
        began = time.monotonic()
        hinter.say([hint.assemble("batch_1"), hint.assemble("batch_2")])
        assert time.monotonic() - began < 0.2
        assert select.select([silent], [], [], 5)[0], "it tried"
        hinter.close()
        assert time.monotonic() - began < 10
    assert unsaid() - before == 2


def test_a_hinter_whose_connection_breaks_loses_one_hint_at_most_and_counts_it(
    redis_url: str, server: redis_client.Redis
) -> None:
    before = unsaid()
    hinter = Hinter(redis_url, 1.0)
    hinter.say([hint.validate("batch_1")])
    until(lambda: server.llen(hint.VALIDATE_QUEUE) == 1, "the first came")
    server.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    hinter.say([hint.validate("batch_2")])
    hinter.say([hint.validate("batch_3")])
    hinter.close()
    lost = unsaid() - before
    assert lost <= 1, "only the one that met the broken connection"
    assert server.llen(hint.VALIDATE_QUEUE) + lost == 3
