"""An engine that runs already, behind the relay: asked as any other, with its key, and its faults seen as faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worker.elsewhere import elsewhere, far_launch
from worker.engines import wait_ready

from penstock.stack.ports import free_port
from penstock_worker.engine import revision
from penstock_worker.engine.client import EngineAnswer, EngineClient, EngineGone
from penstock_worker.engine.launch_spec import BadLaunch, Launch
from penstock_worker.engine.process import probe
from penstock_worker.engine.process.supervisor import Supervisor

CHAT = "/v1/chat/completions"


@contextlib.contextmanager
def supervised(made: Launch, folder: Path) -> Iterator[Supervisor]:
    with Supervisor(made, runtime_dir=folder, log_path=folder / "engine.log") as supervisor:
        yield supervisor


@pytest.fixture(scope="module")
def relayed(short_dir: Path) -> Iterator[tuple[subprocess.Popen[str], Supervisor]]:
    """An engine elsewhere, and what leads to it here."""
    folder = short_dir / "remote"
    with (
        elsewhere() as engine,
        supervised(far_launch(folder, f"{engine.url}/v1/", "--max-num-seqs=4"), folder) as supervisor,
    ):
        wait_ready(supervisor, 30)
        yield engine.process, supervisor


def ask(socket: Path, text: str, **more: Any) -> EngineAnswer:
    async def asked() -> EngineAnswer:
        async with EngineClient(socket=socket) as client:
            body = {"model": "theirs", "messages": [{"role": "user", "content": text}], **more}
            return await client.ask(CHAT, json.dumps(body).encode(), 20.0)

    return asyncio.run(asked())


def test_it_is_asked_as_any_engine_is(relayed: tuple[Any, Supervisor]) -> None:
    answer = ask(relayed[1].launch.socket, "hello")
    assert json.loads(answer.body)["choices"][0]["message"]["content"].startswith("hello")


def test_its_refusals_come_back_as_they_are(relayed: tuple[Any, Supervisor]) -> None:
    answer = ask(relayed[1].launch.socket, "[[status 429 times 1 after 0.5]]")
    assert (answer.status, answer.retry_after_seconds) == (429, 0.5)


def test_a_stream_comes_as_its_engine_sends_it(relayed: tuple[Any, Supervisor]) -> None:
    async def first_event() -> tuple[str, bytes]:
        async with EngineClient(socket=relayed[1].launch.socket) as client:
            body = {
                "model": "theirs",
                "stream": True,
                "messages": [{"role": "user", "content": "hi [[stall-after 1]]"}],
            }
            async with client.open(CHAT, json.dumps(body).encode(), 20.0, "one") as stream:
                return stream.headers["content-type"], await anext(stream.chunks)

    kind_, chunk = asyncio.run(first_event())  # it never ends: what is here came before the end
    assert kind_.startswith("text/event-stream")
    assert chunk.startswith(b"data: {")


def test_whoever_breaks_off_there_breaks_off_here(relayed: tuple[Any, Supervisor]) -> None:
    with pytest.raises(EngineGone):
        ask(relayed[1].launch.socket, "[[break]]")


def test_its_metrics_are_read_as_if_it_ran_here(relayed: tuple[Any, Supervisor]) -> None:
    answer = probe.get(relayed[1].launch.socket, "/metrics", 5.0)
    assert answer is not None
    assert b"vllm:num_requests_running" in answer[1]


def test_the_key_is_in_its_environment_alone_and_the_lines_at_once_are_those_that_were_said(short_dir: Path) -> None:
    made = far_launch(short_dir, "https://far/v1", "--max-num-seqs", "4", PENSTOCK_ENGINE_KEY="a-secret")
    assert made.environment["ENGINE_KEY"] == "a-secret"
    assert "a-secret" not in " ".join(made.command)
    assert (made.batch_slots, made.engine_slots) == (3, 4), "one is kept for a waiting call"
    assert made.command[made.command.index("--url") + 1] == "https://far"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--key-file=/nowhere/key",), "There is no key file /nowhere/key"),
        (("--ca-file=/nowhere/ca.pem",), "There is no CA file /nowhere/ca.pem"),
        ((f"--ca-file={__file__}",), "holds no certificate"),
        (("--priority=fast",), "--priority is one of low_first, high_first, none"),
    ],
)
def test_what_can_be_known_at_once_is_said_at_once(arguments: tuple[str, ...], why: str, short_dir: Path) -> None:
    with pytest.raises(BadLaunch, match=why):
        far_launch(short_dir, "https://far", *arguments)


def test_an_engine_that_was_started_to_order_by_priority_is_told_ranks_in_its_order(short_dir: Path) -> None:
    assert far_launch(short_dir, "http://far").profile.told_priority(4) is None
    assert far_launch(short_dir, "http://far", "--priority=high_first").profile.told_priority(4) == -4


@pytest.mark.parametrize(
    "url",
    [
        "far:8000", "ftp://far", "http://", "http://me:secret@far", "ftp://me:secret@far", "http://[far", "http://far:x",
        "http://far:99999", "http://far/v1?key=secret", "http://far/#secret", "http://far\n", "http://f ar", "http://far:0",
    ],
)  # fmt: skip
def test_an_address_that_leads_nowhere_or_holds_a_password_is_refused(url: str, short_dir: Path) -> None:
    with pytest.raises(BadLaunch) as error:
        far_launch(short_dir, url)
    assert "secret" not in str(error.value)


def test_what_only_its_own_start_can_be_told_is_refused(short_dir: Path) -> None:
    with pytest.raises(BadLaunch, match="--dtype"):
        far_launch(short_dir, "http://far", "--dtype=float32")


def test_its_answers_are_shared_with_nobody_since_nobody_knows_what_it_runs(short_dir: Path) -> None:
    assert revision.of(far_launch(short_dir, "http://far")) == ""


def test_one_that_is_gone_is_dead_until_it_is_there_again(short_dir: Path) -> None:
    port, folder = free_port(), short_dir / "coming"
    with supervised(far_launch(folder, f"http://127.0.0.1:{port}"), folder) as supervisor:
        with elsewhere(port=port):
            first = wait_ready(supervisor, 30)
        with pytest.raises(EngineGone):
            ask(supervisor.launch.socket, "hello")
        with elsewhere(port=port):
            wait_ready(supervisor, 60, first + 1)
            assert ask(supervisor.launch.socket, "hello").status == 200
