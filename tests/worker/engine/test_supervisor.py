"""An engine is kept running, its death is known and its reason visible, and nothing of it is left behind."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import queue
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worker.engines import EngineNotReadyError, echo_launch, ended, engine_pid, is_alive, wait_ready

from penstock_worker.engine.client import EngineClient, EngineGone
from penstock_worker.engine.launch_spec import Launch
from penstock_worker.engine.process import process_record
from penstock_worker.engine.process.guard import look_up
from penstock_worker.engine.process.supervisor import EngineState, Supervisor, backoff_seconds


@pytest.fixture
def folder(short_dir: Path, request: pytest.FixtureRequest) -> Path:
    """A folder of its own with a short path."""
    return short_dir / f"sv{abs(hash(request.node.name)) % 10_000_000}"


class Watched:
    """A supervisor whose news can be waited for."""

    def __init__(self, launch: Launch, folder: Path, **options: Any) -> None:
        self.deaths: queue.Queue[tuple[int, str]] = queue.Queue()
        self.supervisor = Supervisor(
            launch,
            runtime_dir=folder,
            log_path=folder / "engine.log",
            on_death=lambda generation, reason: self.deaths.put((generation, reason)),
            **options,
        )


@pytest.fixture
def watched(folder: Path) -> Iterator[Watched]:
    watched = Watched(echo_launch(folder), folder)
    with watched.supervisor:
        wait_ready(watched.supervisor, 30)
        yield watched


def test_kill_9_of_the_engine_starts_a_new_generation(watched: Watched) -> None:
    supervisor = watched.supervisor
    assert supervisor.generation == 1
    os.kill(engine_pid(supervisor), signal.SIGKILL)
    generation, reason = watched.deaths.get(timeout=10)
    assert generation == 1
    assert "SIGKILL" in reason
    assert "pretends to be 'echo'" in reason, "the end of the log is quoted"
    assert wait_ready(supervisor, 30, generation=2) == 2
    assert is_alive(supervisor)


def test_kill_9_of_the_guard_takes_the_engine_along_and_starts_a_new_one(watched: Watched) -> None:
    supervisor = watched.supervisor
    guard, engine = supervisor.processes
    os.kill(guard.pid, signal.SIGKILL)
    assert ended(engine)
    assert "guard was killed" in watched.deaths.get(timeout=10)[1]
    assert wait_ready(supervisor, 30, generation=2) == 2


def test_a_line_that_kills_the_engine_sees_it_gone_and_the_supervisor_agrees(watched: Watched) -> None:
    async def ask() -> bool:
        async with EngineClient(socket=watched.supervisor.launch.socket) as client:
            with pytest.raises(EngineGone):
                await client.ask("/v1/chat/completions", b'{"messages":[{"role":"user","content":"[[die]]"}]}', 10)
            return await watched.supervisor.lives()

    assert asyncio.run(ask()) is False
    assert watched.deaths.get(timeout=10)[0] == 1


def test_many_can_ask_at_once_whether_it_lives(watched: Watched) -> None:
    async def ask() -> list[bool]:
        return await asyncio.gather(*(watched.supervisor.lives() for _ in range(200)))

    assert all(asyncio.run(ask()))


def test_an_engine_that_stands_still_is_not_alive_and_is_replaced(folder: Path) -> None:
    watched = Watched(echo_launch(folder), folder, unresponsive_seconds=0.5)
    with watched.supervisor as supervisor:
        wait_ready(supervisor, 30)
        os.kill(engine_pid(supervisor), signal.SIGSTOP)
        assert not is_alive(supervisor, 1.0)
        assert "has not answered a health probe" in watched.deaths.get(timeout=20)[1]
        wait_ready(supervisor, 30, generation=2)


def test_an_engine_with_a_request_that_makes_no_step_is_hung_and_an_idle_one_is_not(folder: Path) -> None:
    watched = Watched(echo_launch(folder), folder, stuck_seconds=0.6)
    with watched.supervisor as supervisor:
        wait_ready(supervisor, 30)
        with pytest.raises(queue.Empty):
            watched.deaths.get(timeout=2)  # idle: it makes no step either, and lives

        async def hang() -> int:
            body = b'{"model":"echo","messages":[{"role":"user","content":"[[hang]]"}]}'
            async with EngineClient(
                socket=supervisor.launch.socket, generation=lambda: supervisor.generation
            ) as client:
                with pytest.raises(EngineGone) as caught:
                    await client.ask("/v1/chat/completions", body, 30)
            assert caught.value.sent
            return caught.value.generation

        assert asyncio.run(hang()) == 1
        assert "made no step for" in watched.deaths.get(timeout=20)[1]
        assert not asyncio.run(supervisor.lives(1)), "another start is another engine"


@pytest.mark.slow
def test_an_engine_that_had_been_ready_is_started_again_soon_however_often_it_dies(folder: Path) -> None:
    watched = Watched(echo_launch(folder), folder, chance=lambda: 0.0)
    with watched.supervisor as supervisor:
        for generation in range(1, 6):
            wait_ready(supervisor, 30, generation=generation)
            os.kill(engine_pid(supervisor), signal.SIGKILL)
            watched.deaths.get(timeout=10)
        died_at = time.monotonic()
        while supervisor.generation < 6:
            assert time.monotonic() - died_at < 5, "it waits as if it had never been ready: 6.4 s"
            time.sleep(0.01)


def test_a_restart_is_another_start_and_no_death(watched: Watched) -> None:
    supervisor, before = watched.supervisor, watched.supervisor.processes
    assert supervisor.restart() == 2
    assert supervisor.state is not EngineState.READY, "nobody is to ask it from then on"
    assert wait_ready(supervisor, 30, generation=2) == 2
    assert all(look_up(process.pid) != process for process in before)
    assert (supervisor.deaths_in_row, watched.deaths.empty()) == (0, True)
    supervisor.restart()
    assert supervisor.restart() == 3, "asked again before the start it is the same one"
    assert wait_ready(supervisor, 30, generation=3) == 3


def test_a_restart_ends_the_wait_of_an_engine_that_does_not_start(folder: Path) -> None:
    launch = dataclasses.replace(echo_launch(folder), command=("/nowhere/python",))
    watched = Watched(launch, folder, chance=lambda: 500.0)
    with watched.supervisor as supervisor:
        while watched.deaths.get(timeout=10)[0] < 2:
            pass
        supervisor.restart()  # it would wait for more than three minutes
        assert watched.deaths.get(timeout=20)[0] == 3


def test_stop_leaves_no_process_no_socket_and_no_record(watched: Watched, folder: Path) -> None:
    family = watched.supervisor.processes
    watched.supervisor.stop()
    assert all(look_up(process.pid) is None for process in family)
    assert watched.supervisor.state is EngineState.STOPPED
    assert watched.deaths.empty()
    assert sorted(path.name for path in folder.iterdir()) == ["engine.lock", "engine.log"]
    assert not is_alive(watched.supervisor)


def test_an_engine_that_ignores_sigterm_is_killed_after_the_grace(folder: Path) -> None:
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(1000)"
    launch = dataclasses.replace(echo_launch(folder), command=(sys.executable, "-c", script))
    watched = Watched(launch, folder)
    with watched.supervisor as supervisor:
        with pytest.raises(EngineNotReadyError):
            wait_ready(supervisor, 0.5)
        family = supervisor.processes
        supervisor.stop(grace_seconds=0.2)
    assert family
    assert all(look_up(process.pid) is None for process in family)


def test_an_engine_that_dies_at_each_start_is_tried_again_and_says_why(folder: Path) -> None:
    script = "import sys; print('OSError: no such weights'); sys.exit(3)"
    launch = dataclasses.replace(echo_launch(folder), command=(sys.executable, "-c", script))
    watched = Watched(launch, folder, most_backoff_seconds=0.01)
    with watched.supervisor as supervisor:
        for generation in range(1, 6):
            seen, reason = watched.deaths.get(timeout=20)
            assert seen == generation
            assert "exit status was 3" in reason
            assert "no such weights" in reason
            assert supervisor.trouble is not None
            assert supervisor.trouble.failed_starts >= generation
            assert supervisor.trouble.why == "OSError: no such weights"
        with pytest.raises(EngineNotReadyError, match="no such weights"):
            wait_ready(supervisor, 0.1)
        assert supervisor.deaths_in_row >= 5


def test_a_start_that_can_only_end_alike_is_not_tried_again_at_once(folder: Path) -> None:
    watched = Watched(echo_launch(folder, "--no-such-flag"), folder)
    with watched.supervisor as supervisor:
        assert watched.deaths.get(timeout=20)[0] == 1
        assert supervisor.trouble is not None
        assert supervisor.trouble.final
        with pytest.raises(queue.Empty):
            watched.deaths.get(timeout=2)
        assert supervisor.generation == 1


def test_an_engine_that_is_never_ready_is_given_up_in_time(folder: Path) -> None:
    launch = dataclasses.replace(
        echo_launch(folder), command=(sys.executable, "-c", "import time; time.sleep(1000)"), start_timeout_seconds=0.3
    )
    watched = Watched(launch, folder)
    with watched.supervisor as supervisor:
        assert "not ready after 0 s" in watched.deaths.get(timeout=20)[1]
        assert supervisor.trouble is not None
        assert supervisor.trouble.why.startswith("It was not ready after 0 s.")


def test_a_command_that_is_not_there_is_a_death_with_a_reason(folder: Path) -> None:
    launch = dataclasses.replace(echo_launch(folder), command=("/nowhere/python",))
    watched = Watched(launch, folder)
    with watched.supervisor:
        assert "/nowhere/python" in watched.deaths.get(timeout=20)[1]


def test_a_second_worker_in_the_same_folder_is_refused(watched: Watched, folder: Path) -> None:
    with pytest.raises(process_record.InUse), Watched(echo_launch(folder), folder).supervisor:
        pass
    assert is_alive(watched.supervisor)


def test_the_first_restart_is_at_once_and_the_next_ones_wait_longer_up_to_a_minute() -> None:
    assert [backoff_seconds(deaths, 0.5) for deaths in (1, 2, 3, 4)] == [0.0, 1.0, 2.0, 4.0]
    assert backoff_seconds(50, 0.5) == 60.0
    assert backoff_seconds(50, 0.999) < 72.0 < 60.0 * 1.21
