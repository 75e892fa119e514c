"""An adapter's folder is read before an engine is asked to: what is wrong with it is one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.model_source import adapter_folder
from penstock.model_source.no_model import NoModel
from penstock_worker.engine import tiny_adapter


def configured(**changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        config = folder / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | changes))

    return change


def weights(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        file.write_bytes(change(file.read_bytes()))

    return write


def header(change: Callable[[dict[str, dict[str, object]]], object]) -> Callable[[bytes], bytes]:
    """The same weights under another header."""

    def changed(whole: bytes) -> bytes:
        length = int.from_bytes(whole[:8], "little")
        said = json.loads(whole[8 : 8 + length])
        change(said)
        written = json.dumps(said).encode()
        return len(written).to_bytes(8, "little") + written + whole[8 + length :]

    return changed


def shaped(shape: object) -> Callable[[Path], object]:
    return weights(header(lambda said: said[next(name for name in said if "lora_A" in name)].update(shape=shape)))


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda folder: (folder / "adapter_config.json").unlink(), "is no adapter: there is no adapter_conf"),
    "no weights": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "has no weights"),
    "weights that are cut": (weights(lambda whole: whole[:-1]), "is cut off or damaged"),
    "weights that are none": (weights(lambda whole: b"<html>"), "is cut off or damaged"),
    "a pointer": (weights(lambda whole: b"version https://git-lfs.github.com/spec/v1\n"), "pointer of Git LFS"),
    "half of a pair": (weights(lambda whole: whole.replace(b"lora_B", b"lora_C")), "is not whole: "),
    "no LoRA at all": (weights(lambda whole: whole.replace(b"lora_A", b"other_")), "holds no LoRA weights"),
    "no shape": (shaped(None), "is damaged: "),
    "a shape of nothing": (shaped([]), "has no shape that a tensor has"),
    "a shape of words": (shaped(["4", 64]), "has no shape that a tensor has"),
    "a header that is too deep": (weights(lambda whole: (9_999).to_bytes(8, "little") + b"[" * 9_999), "is cut off"),
    "a config that is too deep": (lambda folder: (folder / "adapter_config.json").write_text("[" * 99_999), "no JSON"),
    "a rank that is none": (configured(r=True), "says no rank"),
    "another kind": (configured(peft_type="IA3"), "is no LoRA adapter: its adapter_config.json says peft_type 'IA3'"),
    "no rank": (configured(r=0), "says no rank"),
    "DoRA": (configured(use_dora=True), "engines take no adapter whose use_dora is True"),
    "whole modules": (configured(modules_to_save=["lm_head"]), "whose modules_to_save is ['lm_head']"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_folder_is_one_line(name: str, tmp_path: Path) -> None:
    tiny_adapter.make(tmp_path / "one", 1)
    change, told = WRONG[name]
    change(tmp_path / "one")
    with pytest.raises(NoModel) as error:
        adapter_folder.check(tmp_path / "one")
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("made", "most_rank", "told"),
    [
        ({}, 8, None),
        ({}, 4, "has rank 8, and chat@v1 is started for 4 at most: start it with --max-lora-rank 8"),
        ({"hidden": 128}, 8, "does not fit chat@v1: base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight is"),
        ({"layers": 3}, 8, "has 2 layers"),
    ],
)
def test_an_adapter_fits_its_base_or_says_why_not(
    made: dict[str, int], most_rank: int, told: str | None, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"hidden_size": 256, "num_hidden_layers": 2}')
    tiny_adapter.make(tmp_path / "one", 1, **made)
    files = adapter_folder.check(tmp_path / "one")
    if told is None:
        adapter_folder.check_fits(files, str(tmp_path), most_rank, base_name="chat@v1")
        return
    with pytest.raises(NoModel) as error:
        adapter_folder.check_fits(files, str(tmp_path), most_rank, base_name="chat@v1")
    assert told in str(error.value)


def test_a_digest_is_of_all_bytes_and_of_the_base(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        tiny_adapter.make(tmp_path / name, seed)
    digests = {name: adapter_folder.digest(adapter_folder.check(tmp_path / name), "chat") for name in "abc"}
    assert digests["a"] == digests["b"] != digests["c"]
    assert adapter_folder.digest(adapter_folder.check(tmp_path / "a"), "chat@v2") != digests["a"]
