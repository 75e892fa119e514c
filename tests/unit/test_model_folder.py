"""A model's folder is read before an engine is: what is wrong with it is one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.model_source import folder, look
from penstock.model_source.no_model import NoModel


def tensors(count: int = 4, kept: int | None = None) -> bytes:
    """A safetensors file of so many bytes of weights, of which so many are kept."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0" * (count if kept is None else kept)


INDEX = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()
GOOD = {"config.json": b"{}", "model.safetensors": tensors()}
WRONG: dict[str, tuple[dict[str, bytes], str]] = {
    "nothing": ({}, "there is no config.json in it (it is empty)"),
    "other files": ({"a.txt": b"", "b.txt": b""}, "no config.json in it (it holds a.txt, b.txt)"),
    "the folder above": ({"llama/config.json": b"{}"}, "/llama has one)"),
    "an adapter": ({"adapter_config.json": b"{}"}, "it is an adapter; serve the model that it was made for"),
    "a config that is cut": ({**GOOD, "config.json": b"{"}, "config.json is no JSON: "),
    "a config that is a list": ({**GOOD, "config.json": b"[]"}, "config.json is no JSON object"),
    "no weights": ({"config.json": b"{}"}, "has no weights"),
    "a part is missing": (
        {"config.json": b"{}", "model.safetensors.index.json": INDEX, "model-1.safetensors": tensors()},
        "is not whole: its index names model-2.safetensors, which is not there",
    ),
    "weights that are cut": ({**GOOD, "model.safetensors": tensors(4, 3)}, "is cut off or damaged"),
    "weights that are none": ({**GOOD, "model.safetensors": b"<html>"}, "is cut off or damaged"),
    "a pointer": ({**GOOD, "model.safetensors": b"version https://git-lfs.github.com/spec/v1\n"}, "pointer of Git LFS"),
}


def made(at: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_bytes(data)
    return at


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_folder_is_named(case: str, tmp_path: Path) -> None:
    files, words = WRONG[case]
    with pytest.raises(NoModel) as told:
        folder.check(made(tmp_path, files))
    assert words in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "files",
    [
        GOOD,
        {"params.json": b"{}", "consolidated.safetensors": tensors()},
        {"config.json": b"{}", "pytorch_model.bin": b"x"},
        {"config.json": b"{}", "model.safetensors.index.json": INDEX.replace(b"model-2", b"model-1")}
        | {"model-1.safetensors": tensors()},
    ],
)
def test_a_model_is_one(files: dict[str, bytes], tmp_path: Path) -> None:
    folder.check(made(tmp_path, files))


def test_what_the_engines_arguments_bring_is_not_looked_for(tmp_path: Path) -> None:
    made(tmp_path, {"config.json": b"{}"})
    assert look.look(str(tmp_path), ["--load-format=dummy"], {}) is None
    made(tmp_path, {"model.safetensors": tensors()})
    (tmp_path / "config.json").unlink()
    assert look.look(str(tmp_path), ["--hf-config-path", "org/other"], {}) is None


@pytest.mark.parametrize("source", ["/nowhere/model", "a/b/c", "models/none.gguf", "./x"])
def test_a_path_that_is_not_there_is_no_hub_id(source: str) -> None:
    with pytest.raises(NoModel, match="There is no"):
        look.look(source, (), {})


@pytest.mark.parametrize("source", ["s3://bucket/model", "org/model:Q4_K_M"])
def test_what_only_the_engine_can_judge_is_left_to_it(source: str) -> None:
    assert look.look(source, (), {}) is None
