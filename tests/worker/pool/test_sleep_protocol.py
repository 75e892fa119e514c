"""Sleep and its defects, as the echo engine plays them: each is noticed, in a sentence, before work depends on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from worker.engines import echo_launch, wait_ready

from penstock.domain.engines.profiles import ECHO
from penstock_worker.engine import metrics
from penstock_worker.engine.process import probe
from penstock_worker.engine.process.supervisor import Supervisor
from penstock_worker.pool import sleep_protocol, token_probe

SLEEP = ECHO.sleep
assert SLEEP is not None
SECONDS = 20.0
FREES = 0.5


@contextmanager
def engine(folder: Path, *arguments: str) -> Iterator[Path]:
    """The socket of an echo engine that can sleep."""
    launch = echo_launch(folder, "--enable-sleep-mode", *arguments)
    with Supervisor(launch, runtime_dir=folder, log_path=folder / "engine.log") as supervisor:
        wait_ready(supervisor, 60)
        yield launch.socket


def _running(socket: Path) -> bool:
    """Whether a request is in it."""
    load = ECHO.load
    answer = probe.get(socket, "/metrics", SECONDS)
    assert load
    assert answer
    return metrics.read(answer[1].decode(), load.names)[load.running] != [0.0]


def test_an_engine_sleeps_with_its_memory_free_and_answers_again_once_it_is_awake(short_dir: Path) -> None:
    with engine(short_dir / "well") as socket:
        awake = sleep_protocol.memory_bytes(socket, SLEEP)
        assert sleep_protocol.fall_asleep(socket, SLEEP, SECONDS, FREES, 0.0) == ""
        asleep = sleep_protocol.memory_bytes(socket, SLEEP)
        assert awake
        assert asleep
        assert asleep < FREES * awake
        assert token_probe.fault(socket, "echo", 0.2) == "It has not answered a request for one token."
        assert sleep_protocol.wake_up(socket, SLEEP, SECONDS) == ""
        assert token_probe.fault(socket, "echo", SECONDS) == ""


def test_a_request_that_is_in_it_is_answered_before_it_sleeps(short_dir: Path) -> None:
    body = json.dumps({"model": "echo", "prompt": "whole [[sleep 300]]"}).encode()
    with engine(short_dir / "waits") as socket, ThreadPoolExecutor() as pool:
        asked = pool.submit(probe.post, socket, "/v1/completions", body, SECONDS)
        while not _running(socket):
            pass
        assert sleep_protocol.fall_asleep(socket, SLEEP, SECONDS, FREES, 0.0) == ""
        status, said = asked.result()
        assert status == 200
        assert json.loads(said)["choices"][0]["finish_reason"] == "stop"


def test_one_that_says_it_sleeps_and_is_dead_is_noticed(short_dir: Path) -> None:
    with engine(short_dir / "dies", "--sleep-fault=dies") as socket:
        why = sleep_protocol.fall_asleep(socket, SLEEP, SECONDS, FREES, 0.0)
        assert why in ("It said that it sleeps, and does not.", "It said that it sleeps, and is dead.")


def test_one_that_keeps_its_memory_is_noticed(short_dir: Path) -> None:
    with engine(short_dir / "keeps", "--sleep-fault=keeps") as socket:
        why = sleep_protocol.fall_asleep(socket, SLEEP, SECONDS, FREES, 0.0)
        assert why == "Asleep it keeps 14.4 of 16.0 GiB of device memory."


def test_one_that_hangs_after_its_sleep_is_noticed_before_it_gets_work(short_dir: Path) -> None:
    with engine(short_dir / "hangs", "--sleep-fault=hangs") as socket:
        assert sleep_protocol.fall_asleep(socket, SLEEP, SECONDS, FREES, 0.0) == ""
        why = sleep_protocol.wake_up(socket, SLEEP, SECONDS) or token_probe.fault(socket, "echo", 0.5)
        assert why
