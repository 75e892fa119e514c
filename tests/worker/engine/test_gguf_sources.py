"""What `--engine llamacpp` is given: a file, or a repository with one GGUF or several; wrong ones are one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from worker.hub import COMMIT, ID, FakeHub, serving

from penstock.domain.engines.profile import EngineSource
from penstock.domain.engines.profiles import LLAMACPP, PROFILES
from penstock.model_source import gguf_hub
from penstock.model_source.download import Download
from penstock.model_source.look import look
from penstock.model_source.no_model import NoModel
from penstock.stack import tiny_model
from penstock.stack.chosen_model import parse_model
from penstock.stack.problem import Problem

FILES = ["README.md", "m-Q4_K_M.gguf", "m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf", "mmproj-f16.gguf"]


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serving(FakeHub({name: bytes(10 * place) for place, name in enumerate(FILES)})) as one:
        yield one


@pytest.fixture
def environ(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub")}


def seen(source: str, environ: dict[str, str], *arguments: str) -> Download | None:
    return look(source, arguments, environ, EngineSource.GGUF)


def test_one_of_several_is_named_by_its_quantisation_or_its_file_and_parts_are_one(environ: dict[str, str]) -> None:
    for source, arguments, size in [
        (f"{ID}:q4_k_m", (), 10),
        (ID, ("--hf-file=m-Q4_K_M.gguf",), 10),
        (f"{ID}:Q8_0", (), 20 + 30),
        (ID, ("--hf-file", "m-Q8_0-00001-of-00002.gguf"), 20 + 30),
    ]:
        download = seen(source, environ, *arguments)
        assert download is not None
        assert download.total_bytes == size


def test_which_is_meant_must_be_said_where_there_are_several(environ: dict[str, str], hub: FakeHub) -> None:
    with pytest.raises(NoModel, match=r"has 2 GGUF files: name one of m-Q4_K_M\.gguf, m-Q8_0\.gguf with --engine-arg="):
        seen(ID, environ)
    with pytest.raises(NoModel, match="has no GGUF files like Q5_0"):
        seen(f"{ID}:Q5_0", environ)
    hub.files = {"config.json": b"{}", "model.safetensors": b""}
    with pytest.raises(NoModel, match=r"has no GGUF file, and llama.cpp reads nothing else"):
        seen(ID, environ)


def test_what_the_cache_has_whole_needs_no_hub(tmp_path: Path, environ: dict[str, str]) -> None:
    repository = tmp_path / "hub" / "hub" / f"models--{ID.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    (snapshot / FILES[2]).write_bytes(b"")
    offline = environ | {"HF_HUB_OFFLINE": "1"}
    with pytest.raises(NoModel, match="HF_HUB_OFFLINE forbids"):
        seen(f"{ID}:Q8_0", offline)
    (snapshot / FILES[3]).write_bytes(b"")
    assert seen(f"{ID}:Q8_0", offline) is None
    assert gguf_hub.fetch(f"{ID}:Q8_0", None, None, offline) == snapshot / FILES[2]


def test_a_file_that_is_none_a_folder_and_a_file_that_is_not_there_are_one_line(tmp_path: Path) -> None:
    odd = tmp_path / "odd.gguf"
    odd.write_bytes(b"odd")
    with pytest.raises(NoModel, match=r"odd\.gguf is no GGUF"):
        seen(str(odd), {})
    with pytest.raises(NoModel, match=r"is a folder, and llama\.cpp reads a GGUF file; name a file in it: odd\.gguf"):
        seen(str(tmp_path), {})
    with pytest.raises(NoModel, match=r"There is no file .*none\.gguf"):
        seen(str(tmp_path / "none.gguf"), {})
    with pytest.raises(NoModel, match="give a GGUF file or a Hugging Face id"):
        seen("what is this", {})


def test_up_reads_the_name_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mini-Q4.gguf"
    file.touch()
    assert parse_model(str(file), LLAMACPP) == ("mini-Q4", str(file))
    assert parse_model(f"m={file}", LLAMACPP) == ("m", str(file))
    assert parse_model("m=org/name:Q4", LLAMACPP) == ("m", "org/name:Q4")
    assert parse_model("tiny-embed") == ("tiny-embed", None)
    with pytest.raises(Problem, match=r"There is no GGUF file /none/x.gguf: give a file or a Hugging Face id"):
        parse_model("m=/none/x.gguf", LLAMACPP)


def test_the_projects_own_models_are_made_where_an_engine_finds_them(tmp_path: Path) -> None:
    assert tiny_model.place("tiny", EngineSource.MODEL, tmp_path) == tmp_path / "tiny"
    file = tiny_model.place("tiny", PROFILES["llamacpp"].source, tmp_path)
    assert file == tmp_path / "tiny.gguf"
    assert tiny_model.command("tiny", file)[-2:] == [str(tmp_path / "tiny"), str(file)]
    with pytest.raises(Problem, match="`tiny-embed` is no GGUF file"):
        tiny_model.place("tiny-embed", EngineSource.GGUF, tmp_path)
