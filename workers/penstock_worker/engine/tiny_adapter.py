"""Tiny adapters: random LoRA weights for the tiny model, the same for a seed each time, for tests and for the curious.

python -m penstock_worker.engine.tiny_adapter FOLDER SEED
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

RANK: Final = 8
_HIDDEN: Final = 256
_WIDTHS: Final = {"q_proj": 256, "v_proj": 128}
"""What each module makes of the hidden size, in the tiny model (tiny.py)."""
_LAYERS: Final = 2
_STRENGTH: Final = 0.3


def make(folder: Path, seed: int, *, rank: int = RANK, hidden: int = _HIDDEN, layers: int = _LAYERS) -> None:
    """Write an adapter as PEFT saves it, some 60 kB; strong enough that greedy answers change."""
    chance = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for layer in range(layers):
        for module, width in _WIDTHS.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{name}.lora_A.weight"] = chance.normal(0, 1, (rank, hidden)).astype("<f4")
            tensors[f"{name}.lora_B.weight"] = chance.normal(0, _STRENGTH, (width, rank)).astype("<f4")
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": "tiny",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": list(_WIDTHS),
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))
    (folder / "adapter_model.safetensors").write_bytes(_safetensors(tensors))


def _safetensors(tensors: dict[str, np.ndarray[Any, Any]]) -> bytes:
    """The bytes of such a file: the header's length, the header, the tensors."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + b"".join(tensor.tobytes() for tensor in tensors.values())


def main(arguments: list[str]) -> None:
    """Make the adapter that is named."""
    if len(arguments) != 2 or not arguments[1].isdecimal():
        sys.exit("usage: python -m penstock_worker.engine.tiny_adapter FOLDER SEED")
    make(Path(arguments[0]), int(arguments[1]))
    print(json.dumps({"adapter": arguments[0], "rank": RANK, "seed": int(arguments[1])}))


if __name__ == "__main__":
    main(sys.argv[1:])
