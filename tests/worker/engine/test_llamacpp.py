"""The real llama.cpp, under the supervisor: asked, watched and ended as any engine is."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worker.engines import ended, engine_pid, wait_ready, worker_like
from worker.hub import ID, FakeHub, serving

from penstock_worker.engine import kind, metrics, revision
from penstock_worker.engine.client import EngineAnswer, EngineClient
from penstock_worker.engine.launch_spec import BadLaunch, Launch
from penstock_worker.engine.process import probe
from penstock_worker.engine.process.supervisor import Supervisor

CHAT = "/v1/chat/completions"


def launch(folder: Path, source: Path | str, *arguments: str, **environ: str) -> Launch:
    return kind.launch(
        "llamacpp", model="tiny", source=str(source), socket=folder / "e.sock", arguments=arguments,
        environ={**os.environ, **environ}, python="python-that-is-not-there",
    )  # fmt: skip


@pytest.fixture(scope="module")
def engine(short_dir: Path, tiny_gguf: Path) -> Iterator[Supervisor]:
    folder = short_dir / "gguf"
    made = launch(folder, tiny_gguf, "--parallel=2", "--ctx-size=1024", "--threads=1")
    soon = {"stuck_seconds": 2.0, "unresponsive_seconds": 1.0}
    with Supervisor(made, runtime_dir=folder, log_path=folder / "engine.log", **soon) as supervisor:
        wait_ready(supervisor, 60)
        yield supervisor


def ask(engine: Supervisor, url: str = CHAT, **body: Any) -> EngineAnswer:
    async def asked() -> EngineAnswer:
        async with EngineClient(socket=engine.launch.socket) as client:
            said = {"messages": [{"role": "user", "content": "Why does water flow?"}]} if url == CHAT else {}
            whole = {"model": "tiny", "temperature": 0, "max_tokens": 8, **said, **body}
            return await client.ask(url, json.dumps(whole).encode(), 60.0)

    return asyncio.run(asked())


def test_it_answers_greedily_the_same_each_time_and_counts_its_tokens(engine: Supervisor) -> None:
    first, second = (json.loads(ask(engine).body) for _ in range(2))
    assert first["choices"] == second["choices"]
    assert first["choices"][0]["message"]["content"]
    assert first["usage"]["completion_tokens"] == 8
    assert first["model"] == "tiny"


def test_its_load_is_read_from_its_own_page(engine: Supervisor) -> None:
    load = engine.launch.profile.load
    assert load
    ask(engine)
    answer = probe.get(engine.launch.socket, load.path, 5.0)
    assert answer
    assert metrics.read(answer[1].decode(), load.names).keys() == load.names


def test_each_sequence_has_the_context_that_the_user_gave_it_and_a_prompt_that_is_longer_is_refused(
    engine: Supervisor,
) -> None:
    assert (engine.launch.batch_slots, engine.launch.engine_slots) == (2, 5)
    slots = probe.get(engine.launch.socket, "/slots", 5.0)
    assert slots
    assert [one["n_ctx"] for one in json.loads(slots[1])] == [512] * 5
    refused = ask(engine, "/v1/completions", prompt="water " * 2_000)
    assert refused.status == 400
    assert json.loads(refused.body)["error"]["type"] == "exceed_context_size_error"


def test_it_is_the_same_revision_until_its_file_or_an_argument_changes(short_dir: Path, tiny_gguf: Path) -> None:
    copy = short_dir / "copy.gguf"
    copy.write_bytes(tiny_gguf.read_bytes())
    os.utime(copy, (1, 1))
    before = revision.of(launch(short_dir, copy))
    assert before == revision.of(launch(short_dir, copy, "--parallel=9")) != ""
    assert before != revision.of(launch(short_dir, copy, "--cache-type-k=q8_0"))
    os.utime(copy, (2, 2))
    assert before != revision.of(launch(short_dir, copy))


def test_a_file_of_the_hub_is_fetched_and_known_by_its_commit(short_dir: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    files = {"m-F32.gguf": tiny_gguf.read_bytes(), "m-Q4_0.gguf": b"another"}
    folder = short_dir / "hub"
    with serving(FakeHub(files)) as hub:
        made = launch(folder, f"{ID}:f32", "--threads=1", HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path))
        assert revision.of(made) == "", "not there: not known"
        with Supervisor(made, runtime_dir=folder, log_path=folder / "engine.log") as supervisor:
            wait_ready(supervisor, 60)
            assert ask(supervisor).status == 200
    assert revision.of(made) != ""


@pytest.mark.parametrize("argument", ["--port=1", "--parallel=none", "--cache-type-k=odd", "--ctx-size=0"])
def test_an_argument_that_it_does_not_take_is_told_before_it_starts(short_dir: Path, argument: str) -> None:
    with pytest.raises(BadLaunch, match=r"llama\.cpp can't be started so: .+ It takes --batch-size, "):
        launch(short_dir, "a.gguf", argument)


@pytest.mark.slow
def test_killed_it_starts_again_on_the_socket_that_it_left_and_stopped_it_is_started_again(engine: Supervisor) -> None:
    os.kill(engine_pid(engine), signal.SIGKILL)
    second = wait_ready(engine, 60, engine.generation + 1)
    assert ask(engine).status == 200
    os.kill(engine_pid(engine), signal.SIGSTOP)
    wait_ready(engine, 120, second + 1)
    assert ask(engine).status == 200


def test_none_of_it_outlives_the_worker(short_dir: Path, tiny_gguf: Path) -> None:
    with worker_like("llamacpp", "tiny", str(tiny_gguf), short_dir / "orphan", "--threads=1") as worker:
        worker.process.kill()
        assert all(ended(process) for process in worker.engine)
