"""A revision changes with whatever changes answers, and with nothing else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from penstock_worker.engine import kind, revision


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "original").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(100))
    (folder / "original" / "params.json").write_text("{}")
    return folder


def of(source: Path | str, *arguments: str, engine: str = "vllm", **environ: str) -> str:
    launch = kind.launch(
        engine,
        model="llama",
        source=str(source),
        socket=Path("/tmp/p/e.sock"),
        arguments=arguments,
        environ={"PATH": "/bin", "VLLM_TARGET_DEVICE": "cpu", **environ},
        python=sys.executable,
    )
    return revision.of(launch)


def test_the_same_start_is_the_same_revision(model: Path) -> None:
    assert of(model) == of(model) != ""
    assert of(model, "--max-num-seqs", "8") == of(model, "--max-num-seqs=64") == of(model)


@pytest.mark.parametrize(
    "arguments", [("--dtype", "float32"), ("--quantization=fp8",), ("--hf-overrides", '{"a": 1}')], ids=str
)
def test_arguments_are_part_of_it(model: Path, arguments: tuple[str, ...]) -> None:
    assert of(model, *arguments) != of(model)


def test_so_is_the_environment_of_vllm_and_no_other(model: Path) -> None:
    assert of(model, VLLM_ATTENTION_BACKEND="X") != of(model)
    assert of(model, COLOUR="red") == of(model)


def test_so_are_the_models_files(model: Path) -> None:
    before = of(model)
    weights = model / "model.safetensors"
    os.utime(weights, (1, 1))
    touched = of(model)
    weights.write_bytes(bytes(101))
    os.utime(weights, (1, 1))
    longer = of(model)
    (model / "original" / "more.json").write_text("{}")
    assert len({before, touched, longer, of(model)}) == 4


def test_so_are_files_that_an_argument_names(model: Path, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{{ messages }}")
    ways = [(f"--chat-template={template}",), ("--lora-modules", f"sql={template}"),
            ("--lora-modules", f'{{"name": "sql", "path": "{template}"}}')]  # fmt: skip
    before = [of(model, *way) for way in ways]
    template.write_text("{{ other_messages }}")
    assert all(of(model, *way) != was for way, was in zip(ways, before, strict=True))


def test_a_model_from_hugging_face_counts_by_its_commit(tmp_path: Path) -> None:
    refs = tmp_path / "hub" / "models--org--llama" / "refs"
    refs.mkdir(parents=True)
    assert of("org/llama", HF_HOME=str(tmp_path)) == "", "not there: not known"
    (refs / "main").write_text("a" * 40)
    first = of("org/llama", HF_HOME=str(tmp_path))
    (refs / "main").write_text("b" * 40)
    second = of("org/llama", HF_HOME=str(tmp_path))
    assert len({first, second, ""}) == 3
    assert of("org/llama", "--revision", "v2", HF_HOME=str(tmp_path)) == ""
    assert of("org/llama", "--revision", "c" * 40, HF_HOME=str(tmp_path)) not in ("", first, second)


def test_an_engine_whose_adapters_change_while_it_runs_has_none(model: Path) -> None:
    assert of(model, VLLM_ALLOW_RUNTIME_LORA_UPDATING="1") == ""
    assert of(model, VLLM_ALLOW_RUNTIME_LORA_UPDATING="0") != ""


def test_one_whose_adapters_its_worker_alone_loads_has_one_however_many_it_holds(model: Path) -> None:
    with_room = of(model, "--enable-lora")
    assert with_room not in ("", of(model))
    assert with_room == of(model, "--enable-lora", "--max-loras=4")
    assert of(model, "--enable-lora", VLLM_ALLOW_RUNTIME_LORA_UPDATING="1") == ""


def test_the_simulated_engine_has_one_too() -> None:
    assert of("", engine="echo") == of("", "--journal=/tmp/x", engine="echo") != of("", "--seed=7", engine="echo")
