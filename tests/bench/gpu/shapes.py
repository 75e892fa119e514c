"""Shapes: models of the size of known ones, with a config and a tokenizer and no weights, which `dummy` loading draws.

The tokenizer is the tiny model's. Ids beyond its own are words that no text is split into, so that whatever random
weights choose is text.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import model

from penstock_worker.engine import tiny

_COPIED: Final = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json")


@dataclass(frozen=True)
class Llama:
    """The size of one."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool = False

    def config(self) -> dict[str, Any]:
        """Its config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.hidden // self.heads,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": tiny.CONTEXT,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_theta": 500_000.0,
            "tie_word_embeddings": self.tied,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 1,
            "torch_dtype": "bfloat16",
        }


EIGHT_B: Final = Llama("llama-8b", 4_096, 14_336, 32, 32, 8, 128_256)
"""Llama 3.1 8B."""
ONE_B: Final = Llama("llama-1b", 2_048, 8_192, 16, 32, 8, 128_256, tied=True)
"""Llama 3.2 1B."""
EMBEDDER: Final = Llama("embedder-300m", 1_024, 4_096, 16, 16, 16, 32_768)


@dataclass(frozen=True)
class Shape:
    """Which models a course runs on, and what that takes."""

    name: str
    large: Llama | None
    """None: the tiny model itself."""
    small: Llama | None
    embedder: Llama | None
    start_seconds: float
    """Of one engine, as a guess."""
    card_gib: float
    """Memory of a card on which two engines of the large one fit."""

    @property
    def dummy(self) -> bool:
        """Whether there are no weights."""
        return self.large is not None


SHAPES: Final = {
    shape.name: shape
    for shape in (
        Shape("8b", EIGHT_B, ONE_B, EMBEDDER, 65.0, 44.0),
        Shape("1b", ONE_B, ONE_B, EMBEDDER, 55.0, 15.0),
        Shape("tiny", None, None, None, 75.0, 0.0),
    )
}


@dataclass(frozen=True)
class Models:
    """Their folders."""

    large: Path
    small: Path
    embedder: Path


def make(shape: Shape, folder: Path) -> Models:
    """Make what is not there yet."""
    plain = Path(model.source(None, folder))
    large, small, embedder = (
        plain if llama is None else written(llama, plain, folder / llama.name)
        for llama in (shape.large, shape.small, shape.embedder)
    )
    return Models(large, small, embedder)


def written(llama: Llama, plain: Path, folder: Path) -> Path:
    """A model's folder: its config, and the tiny model's tokenizer with as many tokens as it has."""
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        if (plain / name).exists():
            shutil.copy(plain / name, folder / name)
    tokenizer = json.loads((plain / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words |= {f"Ġword{number}": number for number in range(len(words), llama.vocabulary)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    (folder / "config.json").write_text(json.dumps(llama.config(), indent=1) + "\n")
    return folder
