"""The tiny model that embeds: a real BERT with random weights from a fixed seed, the same bytes every time.

2 layers of width 128 with the tokenizer of the model that writes (tiny.py); a text's vector is the mean of its tokens',
of length one, 128 numbers. It knows nothing: that texts are alike it sees by their tokens. For /v1/embeddings, scores
and similarities in tests, demos and benchmarks. Run as `python -m penstock_worker.engine.tiny_embed FOLDER`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from penstock_worker.engine import tiny

SEED: Final = 20_261_129
WIDTH: Final = 128
CONTEXT: Final = 512
_MODULES: Final = (
    ("", "sentence_transformers.models.Transformer"),
    ("1_Pooling", "sentence_transformers.models.Pooling"),
    ("2_Normalize", "sentence_transformers.models.Normalize"),
)
"""What makes one vector of a text's, in the files of sentence-transformers, which vLLM reads."""


def make(folder: Path) -> None:
    """Make the model in this folder, all at once; one that is there stays."""
    with tiny.unfinished(folder) as place:
        if place is not None:
            tiny.save_tokenizer(place, CONTEXT)
            _save_weights(place)
            _save_pooling(place)


def _save_weights(folder: Path) -> None:
    import torch
    from transformers import BertConfig, BertModel

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    config = BertConfig(
        vocab_size=tiny.VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=344,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        type_vocab_size=1,
        pad_token_id=1,
        # Larger than the usual 0.02, so that a text's vector says something of it.
        initializer_range=0.2,
        dtype="float32",
    )
    model: Any = BertModel(config, add_pooling_layer=False)
    model.save_pretrained(folder, safe_serialization=True)


def _save_pooling(folder: Path) -> None:
    modules = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(_MODULES)]
    (folder / "modules.json").write_text(json.dumps(modules, indent=2))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": CONTEXT, "do_lower_case": False}))
    pooling = {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2))


def main(arguments: list[str]) -> None:
    """Make the model in the folder that is named."""
    if len(arguments) != 1:
        sys.exit("usage: python -m penstock_worker.engine.tiny_embed FOLDER")
    folder = Path(arguments[0])
    make(folder)
    print(json.dumps({"model": str(folder), "bytes": sum(file.stat().st_size for file in folder.rglob("*"))}))


if __name__ == "__main__":
    main(sys.argv[1:])
