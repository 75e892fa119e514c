"""Declared profiles, each walked on an echo engine elsewhere that plays its pages, errors and metrics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from worker.elsewhere import elsewhere, far_launch
from worker.engines import wait_ready
from worker.ingresses import soon

from penstock.domain.engines.profile import EngineAbort, EngineProfile
from penstock.domain.engines.profiles import PROFILES
from penstock.formats.answers import engine_error
from penstock_worker.budget.budget_loop import engine_load
from penstock_worker.engine.client import EngineAnswer, EngineClient, EngineTimeout
from penstock_worker.engine.process import probe
from penstock_worker.engine.process.supervisor import Supervisor

CHAT = "/v1/chat/completions"
PLAYED = [name for name, profile in PROFILES.items() if profile.is_elsewhere]


@dataclass
class Played:
    """An engine elsewhere that plays a profile, and the way to it."""

    url: str
    said: str
    profile: EngineProfile
    supervisor: Supervisor

    def ask(self, text: str, seconds: float = 20.0, **more: object) -> EngineAnswer:
        async def asked() -> EngineAnswer:
            async with EngineClient(socket=self.supervisor.launch.socket, profile=self.profile) as client:
                body = {"model": "theirs", "messages": [{"role": "user", "content": text}], **more}
                try:
                    return await client.ask(CHAT, json.dumps(body).encode(), seconds)
                finally:
                    await soon(lambda: not client.abandoned.running)

        return asyncio.run(asked())


@pytest.fixture(scope="module", params=PLAYED)
def played(request: pytest.FixtureRequest, short_dir: Path) -> Iterator[Played]:
    name, folder = request.param, short_dir / f"plays-{request.param}"
    with elsewhere("--plays", name) as there:
        launch = far_launch(folder, there.url, engine=name)
        with Supervisor(launch, runtime_dir=folder, log_path=folder / "engine.log") as supervisor:
            wait_ready(supervisor, 30)
            yield Played(there.url, there.said, PROFILES[name], supervisor)


def test_it_is_ready_and_answers_and_says_that_it_is_played(played: Played) -> None:
    answer = played.ask("hello")
    assert json.loads(answer.body)["choices"][0]["message"]["content"] == "hello"
    assert f"simulated, plays {played.profile.name}" in played.said
    models = httpx.get(f"{played.url}/v1/models").json()
    assert models["data"][0]["owned_by"] == f"penstock-echo (simulated, plays {played.profile.name})"
    assert httpx.get(played.url + played.profile.health_paths[0]).status_code == 200


@pytest.mark.parametrize("status", [400, 422, 500])
def test_its_errors_get_openais_envelope(played: Played, status: int) -> None:
    answer = played.ask(f"[[status {status}]]")
    assert answer.status == status
    error = json.loads(engine_error.told(status, answer.body, "theirs", CHAT)[1])["error"]
    assert error["message"] == f"The script says {status}."
    assert error["code"] is None
    unknown = played.ask("hi", model="nobody's")
    status, body = engine_error.told(unknown.status, unknown.body, "nobody's", CHAT)
    assert (status, json.loads(body)["error"]["code"]) == (404, "model_not_found")


def test_its_load_is_read_where_it_says_it(played: Played) -> None:
    load = played.profile.load
    page = probe.get(played.supervisor.launch.socket, load.path if load else "/metrics", 5.0)
    assert page is not None
    if load is None:
        assert page[0] == 404
        return
    before = engine_load(page[1].decode(), load)
    played.ask("some words more")
    after = engine_load(probe.get(played.supervisor.launch.socket, load.path, 5.0)[1].decode(), load)  # type: ignore[index]
    assert before
    assert after
    assert after.running == 0
    assert after.tokens > before.tokens or not load.tokens


def test_it_stops_working_for_whoever_leaves(played: Played) -> None:
    aborted = "echo:requests_aborted_total"
    with pytest.raises(EngineTimeout):
        played.ask("[[hang]]", seconds=0.2)
    if load := played.profile.load:
        page = played.url + load.path
        asyncio.run(soon(lambda: f'{aborted}{{engine="0",model_name="theirs"}} 1' in httpx.get(page).text))


def test_only_sglang_is_told_by_an_id() -> None:
    by_id = [name for name, profile in PROFILES.items() if profile.abort is EngineAbort.REQUEST_ID]
    assert by_id == ["sglang"]
