"""LoRA on the real vLLM: two adapters of one base in one batch and beside base calls, and a new version of one.

With one place for two adapters, so that they push each other out: base answers stay right all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from e2e.live import Platform, chat, said, until, up
from e2e.test_vllm import directly

from penstock_worker.engine import tiny_adapter

pytestmark = [pytest.mark.vllm, pytest.mark.engines, pytest.mark.timeout(900)]

NAMES = ("sql", "poems")
EACH = 20


@pytest.fixture(scope="module")
def vllm(short_dir: Path) -> Iterator[Platform]:
    """float32, since greedy answers in bf16 depend on what else runs."""
    engine = ("--dtype=float32", "--max-model-len=512", "--max-num-seqs=16", "--enable-lora", "--max-loras=1")
    flags = [f"--engine-arg={argument}" for argument in engine]
    with up(short_dir / "va", *flags, ready_seconds=600, cache_timeout_seconds="10", slice_lines="10") as platform:
        until(lambda: platform.ask("select count(*) from workers where open") == 1, "the ingress is open", 60)
        yield platform


def add(platform: Platform, name: str, folder: Path, seed: int) -> dict[str, Any]:
    tiny_adapter.make(folder, seed)
    asked = {"model": name, "base": "tiny", "source": str(folder)}
    answer = platform.http.post("/model_versions", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def prompts() -> list[str]:
    return [f"Question {n}: what does number {n * 37 % 101} mean to a river?" for n in range(EACH)]


def lines(models: tuple[str, ...], **more: Any) -> list[dict[str, Any]]:
    told = {"temperature": 0, "max_tokens": 16, **more}
    return [chat(f"{model} {n}", text, model=model, **told) for n, text in enumerate(prompts()) for model in models]


async def loaded(socket: Path, path: str, **body: str) -> None:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session,
        session.post(f"http://engine{path}", json=body) as answer,
    ):
        assert answer.status == 200, await answer.text()


def asked_directly(platform: Platform, folder: Path | None) -> list[str]:
    """What the engine says when nobody stands between; with the adapter of this folder, which we load ourselves."""
    socket, model = platform.engine_socket(), "tiny"
    if folder is not None:
        model = "by-hand"
        asyncio.run(loaded(socket, "/v1/load_lora_adapter", lora_name=model, lora_path=str(folder)))
    bodies = [line["body"] for line in lines((model,))]
    answers = asyncio.run(directly(socket, bodies))
    if folder is not None:
        asyncio.run(loaded(socket, "/v1/unload_lora_adapter", lora_name=model))
    return [answer["choices"][0]["message"]["content"] for answer in answers]


def batch(platform: Platform, asked: list[dict[str, Any]], **extra: Any) -> dict[str, list[str]]:
    """Texts by model, in order."""
    done = platform.ended(platform.submit(asked, **extra).id, 400)
    assert done.request_counts
    assert (done.status, done.request_counts.failed) == ("completed", 0)
    texts: dict[str, list[str]] = {}
    for line in platform.file(done.output_file_id):
        model = line["custom_id"].partition(" ")[0]
        assert line["response"]["body"]["model"] == model
        texts.setdefault(model, []).append(said(line))
    return texts


def test_adapters_answer_as_the_engine_does_when_it_is_asked_directly_and_a_new_version_as_itself(
    vllm: Platform, tmp_path: Path
) -> None:
    alone = asked_directly(vllm, None)
    for seed, name in enumerate(NAMES, 1):
        made = add(vllm, name, tmp_path / name, seed)
        assert (made["id"], made["base"]) == (f"{name}@v1", "tiny@v1")

    mixed = batch(vllm, lines(("tiny", *NAMES)), cache={"mode": "on"})
    assert mixed["tiny"] == alone, "beside adapters the base answers as it does alone"
    for one, other in (("sql", "poems"), ("sql", "tiny"), ("poems", "tiny")):
        same = sum(a == b for a, b in zip(mixed[one], mixed[other], strict=True))
        assert same < EACH / 4, f"{same} of {EACH} answers of {one} and {other} are equal"

    for model in ("poems", "tiny", "sql", "tiny", "poems"):
        asked = {"model": model, "messages": [{"role": "user", "content": prompts()[3]}], "temperature": 0}
        answer = vllm.http.post("/chat/completions", json=asked | {"max_tokens": 16}).json()
        assert (answer["model"], answer["choices"][0]["message"]["content"]) == (model, mixed[model][3])

    # A new version under the same name, in the same folder.
    until(lambda: vllm.ask("select count(*) from slices where state = 'running'") == 0, "nothing runs")
    second = add(vllm, "sql", tmp_path / "sql", 9)
    assert second["id"] == "sql@v2"
    promoted = vllm.http.post("/model_aliases/sql@stable/promote", json={"version": "v2", "weight": 100})
    assert promoted.status_code == 200
    new = batch(vllm, lines(("tiny", "sql")), cache={"mode": "on"})
    assert new["tiny"] == alone
    assert sum(a == b for a, b in zip(new["sql"], mixed["sql"], strict=True)) < EACH / 4

    # Whose is in the engine's one place now is nobody's to ask from here on: what is loaded by hand takes it.
    assert asked_directly(vllm, tmp_path / "poems") == mixed["poems"]
    assert asked_directly(vllm, tmp_path / "sql") == new["sql"]
