"""The tiny model is the same bytes wherever it is made, and a cut run leaves nothing that looks finished."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_worker.engine import tiny_gguf as tiny_gguf_module


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "first"
    _make(folder)
    return folder


def _make(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "penstock_worker.engine.tiny", str(folder)], check=True, capture_output=True)


def test_two_runs_make_the_same_bytes(made: Path, tiny_model: Path) -> None:
    first, second = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in (made, tiny_model))
    assert first == second
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(first)


def test_it_is_a_small_bf16_llama(made: Path) -> None:
    config = json.loads((made / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]) == (256, 2, 1_024)
    assert config["dtype"] == "bfloat16"
    assert (made / "model.safetensors").stat().st_size < 5_000_000


def test_nothing_unfinished_is_left_beside_it(made: Path) -> None:
    assert [file.name for file in made.parent.iterdir()] == ["first"]


def test_a_model_that_is_there_is_not_made_again(made: Path) -> None:
    born = (made / "config.json").stat().st_mtime_ns
    _make(made)
    assert (made / "config.json").stat().st_mtime_ns == born


@pytest.mark.slow
def test_the_gguf_and_the_model_that_embeds_are_the_same_bytes_every_time_too(
    tmp_path: Path, tiny_model: Path, tiny_gguf: Path
) -> None:
    again = tmp_path / "again.gguf"
    tiny_gguf_module.write(tiny_model, again)
    assert again.read_bytes() == tiny_gguf.read_bytes()
    command = [sys.executable, "-m", "penstock_worker.engine.tiny_embed"]
    for folder in ("first", "second"):
        subprocess.run([*command, str(tmp_path / folder)], check=True, capture_output=True)
    first, second = (
        {str(file.relative_to(tmp_path / folder)): file.read_bytes() for file in (tmp_path / folder).rglob("*.*")}
        for folder in ("first", "second")
    )
    assert first == second
    assert {"config.json", "model.safetensors", "modules.json", "1_Pooling/config.json"} <= set(first)
