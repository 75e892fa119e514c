"""Adapters beside their base, through a whole platform, on the simulated engine, which plays loading and unloading.

It holds two at once, refuses a third, and says in front of its answers whose they are.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.live import CHAT, PENSTOCK, Platform, chat, said, until, up

from penstock_worker.engine import tiny_adapter

pytestmark = pytest.mark.timeout(300)

NAMES = ("sql", "poems", "org/laws")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp("adapters") / name.replace("/", "-") for name in NAMES}
    for seed, folder in enumerate(made.values()):
        tiny_adapter.make(folder, seed)
    return made


@pytest.fixture(scope="module")
def platform(short_dir: Path, folders: dict[str, Path]) -> Iterator[Platform]:
    """A platform with room for two adapters, and three of them."""
    engine = ("--engine=echo", "--engine-arg=--enable-lora", "--engine-arg=--max-loras=2", "--engine-arg=--itl-ms=1")
    with up(short_dir / "a", *engine, slice_lines="20", poll_seconds="0.5", cache_timeout_seconds="10") as one:
        until(lambda: one.ask("select count(*) from workers where open") == 1, "the ingress is open")
        for name, folder in folders.items():
            added = penstock(one, "models", "add", name, "--base", "tiny", "--source", str(folder))
            assert added.stdout.startswith(f"{name}@v1 is an adapter on tiny@v1, from {folder}"), added.stderr
        yield one


def penstock(platform: Platform, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [PENSTOCK, *arguments, "--data", str(platform.data)]
    return subprocess.run(command, capture_output=True, text=True, env=dict(platform.environment), check=False)


def digest(platform: Platform, version: str) -> str:
    return platform.http.get(f"/model_versions/{version}").json()["digest"]


def expected(platform: Platform, model: str, text: str) -> str:
    """What the engine says as this model."""
    if model == "tiny":
        return text
    name, _, label = model.partition("@")
    return f"{name}@{digest(platform, name + '@' + (label or 'v1'))[:12]}: {text}"


def call(platform: Platform, model: str, text: str, **more: Any) -> Any:
    asked = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    return platform.http.post("/chat/completions", json=asked)


def test_a_batch_of_a_base_and_three_adapters_on_two_places_has_each_line_by_its_own(platform: Platform) -> None:
    models = ["tiny", *NAMES]
    lines = [chat(f"{n}", f"line {n}", model=models[n % 4]) for n in range(400)]
    batch = platform.ended(platform.submit(lines).id)
    assert (batch.status, batch.request_counts and batch.request_counts.completed) == ("completed", 400)
    told = {model: expected(platform, model, "") for model in models}
    for line in platform.file(batch.output_file_id):
        n = int(line["custom_id"])
        assert said(line) == f"{told[models[n % 4]]}line {n}"
        assert line["response"]["body"]["model"] == models[n % 4]
    assert batch.to_dict()["versions"] == {name: ["v1"] for name in models}


def test_calls_ask_an_adapter_by_its_name_and_hear_it_back_in_streams_too(platform: Platform) -> None:
    for model in ("org/laws", "poems", "tiny", "sql", "sql@v1"):
        answer = call(platform, model, "hello")
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == model
        assert answer.json()["choices"][0]["message"]["content"] == expected(platform, model, "hello")
        assert answer.headers["x-penstock-version"] == "v1"
    with platform.sdk.chat.completions.create(
        model="poems", messages=[{"role": "user", "content": "hello"}], stream=True
    ) as stream:
        pieces = list(stream)
    assert {piece.model for piece in pieces} == {"poems"}
    whole = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert whole == expected(platform, "poems", "hello")


def test_an_engine_that_was_started_again_loads_its_adapters_again(platform: Platform) -> None:
    assert call(platform, "sql", "before").status_code == 200
    lines = [chat("dies", "[[die]]"), *(chat(f"{n}", f"after {n}", model="sql") for n in range(30))]
    batch = platform.ended(platform.submit(lines).id)
    assert batch.request_counts
    assert (batch.request_counts.completed, batch.request_counts.failed) == (30, 1)
    assert said(platform.file(batch.output_file_id)[-1]) == expected(platform, "sql", "after 29")
    until(lambda: call(platform, "sql", "again").status_code == 200, "calls are answered again")


def test_a_new_version_under_the_same_name_never_answers_from_the_old_ones_cache(
    platform: Platform, folders: dict[str, Path]
) -> None:
    lines = [chat(f"{n}", f"kept {n}", model="poems", temperature=0) for n in range(20)]
    cache = {"mode": "on"}
    until(lambda: call(platform, "poems", "k", temperature=0, cache=cache).headers.get("x-penstock-cache") == "hit", "")
    platform.ended(platform.submit(lines, cache=cache).id)

    def again() -> list[dict[str, Any]]:
        return platform.file(platform.ended(platform.submit(lines, cache=cache).id).output_file_id)

    until(lambda: all(line["response"].get("cached") for line in again()), "the batch is answered from the cache")
    tiny_adapter.make(folders["poems"], 77)
    added = penstock(platform, "models", "add", "poems", "--base", "tiny", "--source", str(folders["poems"]), "--json")
    assert json.loads(added.stdout)["id"] == "poems@v2", added.stderr
    assert said(again()[0]) == expected(platform, "poems@v1", "kept 0"), "nobody promoted it"
    done = platform.http.post("/model_aliases/poems@stable/promote", json={"version": "v2", "weight": 100})
    assert done.status_code == 200, done.text
    new = again()
    assert not any(line["response"].get("cached") for line in new)
    assert [said(line) for line in new] == [expected(platform, "poems@v2", f"kept {n}") for n in range(20)]
    until(lambda: call(platform, "poems", "x").headers["x-penstock-version"] == "v2", "calls hear of it")
    answer = call(platform, "poems", "k", temperature=0, cache=cache)
    assert answer.headers["x-penstock-cache"] == "miss"
    assert answer.json()["choices"][0]["message"]["content"] == expected(platform, "poems@v2", "k")


def test_files_that_changed_since_they_were_added_are_no_version_that_anybody_asked(
    platform: Platform, folders: dict[str, Path], tmp_path: Path
) -> None:
    tiny_adapter.make(tmp_path / "odd", 5)
    assert penstock(platform, "models", "add", "odd", "--base", "tiny", "--source", str(tmp_path / "odd")).stdout
    tiny_adapter.make(tmp_path / "odd", 6)
    until(lambda: call(platform, "odd", "x").status_code != 404, "calls hear of it")
    answer = call(platform, "odd", "x")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "adapter_unusable")
    batch = platform.ended(platform.submit([chat("1", "x", model="odd")]).id)
    error = platform.file(batch.error_file_id)[0]["response"]["body"]["error"]
    assert error["code"] == "adapter_unusable"
    assert error["message"].endswith("add them as a version of their own.")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--base", "nobody"), "The base: The model 'nobody' does not exist."),
        (("--base", "tiny@v9"), "The base: The model 'tiny' has no version v9."),
        (("--base", "sql"), "sql@v1 is an adapter itself, and none hangs on another."),
        (("--base", "tiny", "--source", "/nowhere"), "There is no adapter folder /nowhere."),
    ],
)
def test_an_adapter_that_can_not_be_is_refused_when_it_is_added(
    platform: Platform, folders: dict[str, Path], arguments: tuple[str, ...], told: str
) -> None:
    source = () if "--source" in arguments else ("--source", str(folders["sql"]))
    done = penstock(platform, "models", "add", "new", *arguments, *source)
    assert done.returncode == 1
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_operator_adds_one_over_http_and_reads_what_it_hangs_on(platform: Platform, tmp_path: Path) -> None:
    tiny_adapter.make(tmp_path / "wide", 1, rank=64)
    asked = {"model": "wide", "base": "tiny", "source": str(tmp_path / "wide")}
    refused = platform.http.post("/model_versions", json=asked)
    assert refused.status_code == 400
    assert "has rank 64, and tiny@v1 is started for 16 at most" in refused.json()["error"]["message"]
    tiny_adapter.make(tmp_path / "wide", 1)
    made = platform.http.post("/model_versions", json=asked).json()
    assert (made["id"], made["base"], made["state"], made["live_workers"]) == ("wide@v1", "tiny@v1", "draft", 1)
    assert platform.http.post("/model_versions", json=asked).json()["id"] == "wide@v1", "the same again"
    assert {"wide", "tiny"} <= {one["id"] for one in platform.http.get("/models").json()["data"]}


def test_nothing_was_loaded_that_the_engine_had_no_room_for(platform: Platform) -> None:
    log = next((platform.data / "logs").glob("*gpu*")).read_text()
    assert log.count("adapter_loaded") > 6
    assert "No free lora slots" not in log
    assert CHAT
