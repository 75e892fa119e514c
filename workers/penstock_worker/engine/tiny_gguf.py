"""The tiny model as a GGUF: the same weights in float32, for llama.cpp. The same bytes every time.

Run as `python -m penstock_worker.engine.tiny_gguf FOLDER FILE.gguf`; needs `gguf` and numpy.
Sources: llama.cpp's `convert_hf_to_gguf.py` (names of tensors, order of rotary halves), gguf 0.19.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from penstock_worker.engine import tiny

_DTYPES: Final = {"F32": "<f4", "F16": "<f2"}
_NAMES: Final = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
_OUTER: Final = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def write(folder: Path, file: Path) -> None:
    """Write the Llama in this folder as a GGUF, all at once; what is there already stays, and what is not is made."""
    if file.exists():
        return
    tiny.make(folder)
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.unfinished")
    try:
        _write(folder, unfinished)
        unfinished.rename(file)
    finally:
        unfinished.unlink(missing_ok=True)


def _write(folder: Path, file: Path) -> None:
    import gguf

    config = json.loads((folder / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_width = config.get("head_dim") or config["hidden_size"] // heads
    writer: Any = gguf.GGUFWriter(str(file), "llama")
    writer.add_name(folder.name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_width)
    writer.add_value_length(head_width)
    writer.add_rope_dimension_count(head_width)
    writer.add_rope_freq_base((config.get("rope_parameters") or config)["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _add_tokenizer(writer, folder, config)
    for name, weights in _tensors(folder / "model.safetensors"):
        if "q_proj" in name or "k_proj" in name:
            weights = _interleaved(weights, heads if "q_proj" in name else kv_heads)
        writer.add_tensor(_name(name), np.ascontiguousarray(weights, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: Any, folder: Path, config: dict[str, Any]) -> None:
    import gguf

    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    words = [f"[PAD{number}]" for number in range(config["vocab_size"])]
    kinds = [gguf.TokenType.UNUSED] * config["vocab_size"]
    for word, number in tokenizer["model"]["vocab"].items():
        words[number], kinds[number] = word, gguf.TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        words[added["id"]] = added["content"]
        kinds[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")  # ByteLevel(use_regex=True) splits by GPT-2's pattern
    writer.add_token_list(words)
    writer.add_token_types(kinds)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template((folder / "chat_template.jinja").read_text())


def _name(name: str) -> str:
    if name in _OUTER:
        return _OUTER[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{_NAMES[rest.removesuffix('.weight')]}.weight"


def _tensors(file: Path) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Each tensor of a safetensors file as float32; its format: 8 bytes of the header's length, header, tensors."""
    data = file.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    head = json.loads(data[8:begin])
    head.pop("__metadata__", None)
    for name, about in head.items():
        start, end = about["data_offsets"]
        part = data[begin + start : begin + end]
        if about["dtype"] == "BF16":  # the upper half of a float32
            weights = (np.frombuffer(part, "<u2").astype("<u4") << 16).view("<f4")
        else:
            weights = np.frombuffer(part, _DTYPES[about["dtype"]]).astype("<f4")
        yield name, weights.reshape(about["shape"])


def _interleaved(weights: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Transformers keeps the two halves of a rotation apart, llama.cpp in pairs."""
    rows, *rest = weights.shape
    return weights.reshape(heads, 2, rows // heads // 2, *rest).swapaxes(1, 2).reshape(weights.shape)


def main(arguments: list[str]) -> None:
    """Write the GGUF that is named."""
    if len(arguments) != 2:
        sys.exit("usage: python -m penstock_worker.engine.tiny_gguf FOLDER FILE.gguf")
    file = Path(arguments[1])
    write(Path(arguments[0]), file)
    print(json.dumps({"model": str(file), "bytes": file.stat().st_size}))


if __name__ == "__main__":
    main(sys.argv[1:])
