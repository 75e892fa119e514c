"""A model's folder: what an engine needs to find in it, and what is wrong where it does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from penstock.model_source.no_model import NoModel

CONFIGS: Final = ("config.json", "params.json")
"""What says how a model is built: Transformers' own, and Mistral's."""
WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_INDEXES: Final = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_MOST_HEADER_BYTES: Final = 100_000_000
"""What the format itself allows."""
_LFS: Final = b"version https://git-lfs"


def check(folder: Path, *, config: bool = True, weights: bool = True) -> None:
    """Raise NoModel unless the folder has a config that can be read, and weights, all that their index names.

    `config` and `weights` are False where the engine's arguments say that they come from elsewhere, or not at all.
    """
    try:
        names = sorted(file.name for file in folder.iterdir())
    except OSError as error:
        raise NoModel(f"The model folder {folder} can't be read: {error.strerror}.") from None
    if config and not any(name in names for name in CONFIGS):
        adapter = "adapter_config.json" in names
        what = "it is an adapter; serve the model that it was made for" if adapter else _what(folder, names)
        raise NoModel(f"{folder} is no model folder: there is no config.json in it ({what}).")
    for known in (*CONFIGS, *_INDEXES):
        if known in names:
            read_object(folder / known)
    if not weights:
        return
    if not any(name.endswith(WEIGHTS) for name in names):
        raise NoModel(f"{folder} has no weights: there is no file *.safetensors, *.bin, *.pt or *.gguf in it.")
    for indexed in _indexed(folder, names):
        if indexed not in names:
            raise NoModel(f"{folder} is not whole: its index names {indexed}, which is not there. Copy it again.")
    for name in names:
        if name.endswith(WEIGHTS):
            check_whole(folder / name)


def check_whole(file: Path) -> None:
    """Raise NoModel for weights that are a pointer, or shorter than they say."""
    if _is_pointer(file):
        raise NoModel(f"{file} is a pointer of Git LFS, not the weights: say `git lfs pull` there.")
    if file.suffix == ".safetensors" and _is_cut(file):
        raise NoModel(f"{file} is cut off or damaged: it is shorter than it says. Copy it again.")


def _what(folder: Path, names: list[str]) -> str:
    inside = [name for name in names if (folder / name / "config.json").is_file()]
    if inside:
        return f"{folder / inside[0]} has one"
    return "it is empty" if not names else f"it holds {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"


def read_object(file: Path) -> dict[str, object]:
    """A JSON object; raise NoModel for anything else."""
    try:
        found = json.loads(file.read_bytes())
    except OSError as error:
        raise NoModel(f"{file} can't be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise NoModel(f"{file} is no JSON: {error}.") from None
    if not isinstance(found, dict):
        raise NoModel(f"{file} is no JSON object.")
    return found


def _indexed(folder: Path, names: list[str]) -> Iterator[str]:
    """The files that the first index names: an engine reads the safetensors, and looks at nothing else then."""
    for index in (index for index in _INDEXES if index in names):
        places = read_object(folder / index).get("weight_map")
        yield from sorted({str(name) for name in places.values()} if isinstance(places, dict) else ())
        return


def _is_cut(file: Path) -> bool:
    """Whether a safetensors file is shorter than its header says: 8 bytes of the header's length, header, tensors.

    Source: github.com/huggingface/safetensors, "Format".
    """
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(min(length, _MOST_HEADER_BYTES)))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        return file.stat().st_size < 8 + length + max(ends, default=0)
    except OSError as error:
        raise NoModel(f"{file} can't be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return True


def _is_pointer(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return opened.read(len(_LFS)) == _LFS
    except OSError as error:
        raise NoModel(f"{file} can't be read: {error.strerror}.") from None
