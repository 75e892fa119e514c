"""An adapter's folder, as PEFT saves it: what must be in it, whether it fits its base, and its digest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from penstock.model_source import folder
from penstock.model_source.no_model import NoModel

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
_PIECE_BYTES: Final = 1 << 20
_MOST_DIMENSIONS: Final = 4
_LAYER: Final = re.compile(r"\.layers\.(\d{1,9})\.")
_READS_HIDDEN: Final = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
_WRITES_HIDDEN: Final = ("o_proj", "down_proj")


@dataclass(frozen=True)
class AdapterFiles:
    """What was found."""

    folder: Path
    rank: int
    """The largest of its modules'."""
    shapes: Mapping[str, tuple[int, ...]]
    """Of its tensors, by name."""


def check(at: Path) -> AdapterFiles:
    """Raise NoModel, with one line, unless this is a whole LoRA adapter of a kind that engines take."""
    if not at.is_dir():
        raise NoModel(f"There is no adapter folder {at}.")
    if not (at / CONFIG).is_file():
        what = "it is a whole model; serve it as one" if (at / "config.json").is_file() else "nothing says what it is"
        raise NoModel(f"{at} is no adapter: there is no {CONFIG} in it ({what}).")
    config = folder.read_object(at / CONFIG)
    if (kind := config.get("peft_type")) != "LORA":
        raise NoModel(f"{at} is no LoRA adapter: its {CONFIG} says peft_type {kind!r}.")
    for name, good in (("use_dora", (False, None)), ("modules_to_save", (None, [])), ("bias", ("none", None))):
        if config.get(name) not in good:
            raise NoModel(f"{at} can't be loaded: engines take no adapter whose {name} is {config[name]!r}.")
    pattern = config.get("rank_pattern")
    ranks = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else ())]
    if not all(type(rank) is int and rank > 0 for rank in ranks):
        raise NoModel(f"{at / CONFIG} says no rank: r must be a whole number above 0.")
    weights = at / WEIGHTS
    if not weights.is_file():
        raise NoModel(f"{at} has no weights: there is no {WEIGHTS} in it; other formats are not taken.")
    folder.check_whole(weights)
    shapes = _shapes(weights)
    firsts = {name for name in shapes if ".lora_A." in name}
    if not firsts:
        raise NoModel(f"{weights} holds no LoRA weights: none of its tensors is a lora_A.")
    if alone := [name for name in sorted(firsts) if name.replace(".lora_A.", ".lora_B.") not in shapes]:
        raise NoModel(f"{weights} is not whole: {alone[0]} has no lora_B.")
    return AdapterFiles(at, max(int(rank) for rank in ranks if isinstance(rank, int)), shapes)


def check_fits(files: AdapterFiles, base: str, most_rank: int, *, base_name: str = "its base") -> None:
    """Raise NoModel if the adapter's rank is more than its base's engine takes, or the base has another shape.

    `base`: the base's source; where it is no folder that can be seen, its shape is left to the engine.
    """
    if files.rank > most_rank:
        raise NoModel(
            f"{files.folder} has rank {files.rank}, and {base_name} is started for {most_rank} at most: start it with "
            f"--max-lora-rank {files.rank}."
        )
    config = Path(base) / "config.json"
    if not config.is_file():
        return
    shape = folder.read_object(config)
    hidden, layers = shape.get("hidden_size"), shape.get("num_hidden_layers")
    for name, found in files.shapes.items():
        layer = _LAYER.search(name)
        if layer and isinstance(layers, int) and int(layer[1]) >= layers:
            raise NoModel(f"{files.folder} does not fit {base_name}: {name}, and {base} has {layers} layers.")
        width = _hidden_width(name, found)
        if isinstance(hidden, int) and width not in (None, hidden):
            raise NoModel(f"{files.folder} does not fit {base_name}: {name} is {width} wide, and {base} is {hidden}.")


def digest(files: AdapterFiles, base: str) -> str:
    """A hash of what the folder holds, and of the queue of the version that it hangs on; reads all of it."""
    hash = hashlib.blake2b(base.encode(), digest_size=16)
    try:
        for name in (CONFIG, WEIGHTS):
            with (files.folder / name).open("rb") as file:
                hash.update(b"\0%d:" % (files.folder / name).stat().st_size)
                while piece := file.read(_PIECE_BYTES):
                    hash.update(piece)
    except OSError as error:
        raise NoModel(f"The adapter folder {files.folder} can't be read: {error.strerror}.") from None
    return hash.hexdigest()


def _shapes(weights: Path) -> dict[str, tuple[int, ...]]:
    """Of a file that is whole, so its header can be read."""
    try:
        with weights.open("rb") as file:
            header: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    except OSError as error:
        raise NoModel(f"{weights} can't be read: {error.strerror}.") from None
    found = {name: _shape(tensor.get("shape")) for name, tensor in header.items() if name != "__metadata__"}
    if odd := [name for name, shape in found.items() if shape is None]:
        raise NoModel(f"{weights} is damaged: {odd[0][:100]!r} has no shape that a tensor has. Copy it again.")
    return {name: shape for name, shape in found.items() if shape is not None}


def _shape(said: object) -> tuple[int, ...] | None:
    """A tensor's; of an adapter's none has more than four dimensions, or none at all."""
    if not isinstance(said, list) or not 0 < len(said) <= _MOST_DIMENSIONS:
        return None
    return tuple(said) if all(type(size) is int and size > 0 for size in said) else None


def _hidden_width(name: str, shape: tuple[int, ...]) -> int | None:
    """What a tensor takes for the model's hidden size, where its name says so."""
    module = name.partition(".lora_")[0].rpartition(".")[2]
    if module in _READS_HIDDEN and ".lora_A." in name:
        return shape[-1]
    return shape[0] if module in _WRITES_HIDDEN and ".lora_B." in name else None
