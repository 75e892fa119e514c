"""The tiny model: a real Llama with random weights from a fixed seed, made in seconds, the same bytes every time.

2 layers of width 256, a byte-level BPE of 1,024 tokens trained on the text below, a chat template, bf16. It says
nonsense at real speed: every part of the road is real but the knowledge. Only this file and
tiny_embed.py use transformers and tokenizers. Run as `python -m penstock_worker.engine.tiny FOLDER`.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

SEED: Final = 20_261_124
VOCABULARY: Final = 1_024
CONTEXT: Final = 4_096
BEGIN, END, TURN = "<|begin|>", "<|end|>", "<|turn|>"
CHAT_TEMPLATE: Final = (
    "{{ '" + BEGIN + "' }}"
    "{% for message in messages %}"
    "{{ '" + TURN + "' + message['role'] + '\n' + message['content'] + '" + END + "' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + TURN + "assistant\n' }}{% endif %}"
)  # fmt: skip
NOUNS: Final = (
    "river water gate turbine reservoir valley pressure stream engine battery signal garden window mountain winter "
    "question answer number letter teacher student machine language picture market kitchen harbour sentence story"
)
VERBS: Final = "carries holds opens follows turns answers measures explains describes writes reads counts finds"
ADJECTIVES: Final = "small bright heavy quiet narrow patient modern ancient careful useful empty warm distant clear"
# Beginnings and ends of words: what the sentences lack in variety.
STARTS: Final = "be co de ex for in im inter over per pre pro re sub trans un under with ac ad al am ap ar at con dis"
MIDDLES: Final = "act form press tend tain sist port mit fer ceive clude duce ject scribe spect struct tract vent vert"
ENDS: Final = "able ed er es ful ing ion ive less ly ment ness or ous s"
PATTERNS: Final = (
    "The {a} {n} {v} the {m}.",
    "Why does a {n} need the {a} {m}?",
    "If the {n} {v} the {m}, then the {m} {w} the {n}.",
    "Please explain how the {n} {v} a {a} {m} in one sentence.",
    "1. {n}: {a}; 2. {m}: {v} and {w}.",
    '{{"{n}": "{a}", "{m}": [1, 20, 300]}}',
    "You are a helpful assistant. Answer briefly and {a}ly about the {n}.",
)


def training_text() -> list[str]:
    """Sentences to train the tokenizer on."""
    nouns, verbs, adjectives = NOUNS.split(), VERBS.split(), ADJECTIVES.split()
    pairs = itertools.product(enumerate(nouns), enumerate(nouns))
    stems = [start + middle for start in STARTS.split() for middle in MIDDLES.split()]
    words = [" ".join(stem + end for end in ENDS.split()) for stem in stems]
    numbers = [f"{number} times {number} is {number * number}." for number in range(100)]
    sentences = [
        PATTERNS[(i + 2 * j) % len(PATTERNS)].format(
            n=noun, m=other, v=verbs[(i + j) % len(verbs)], w=verbs[(3 * i + j) % len(verbs)],
            a=adjectives[(i + 5 * j) % len(adjectives)],
        )
        for (i, noun), (j, other) in pairs
    ]  # fmt: skip
    return sentences + words + numbers


def make(folder: Path) -> None:
    """Make the model in this folder; one that is there stays."""
    with unfinished(folder) as place:
        if place is not None:
            save_tokenizer(place, CONTEXT)
            _save_weights(place)


@contextmanager
def unfinished(folder: Path) -> Iterator[Path | None]:
    """A place beside the folder to make a model in, which becomes the folder all at once; None if it is made already.

    A cut run leaves nothing that looks finished.
    """
    if (folder / "config.json").exists():
        yield None
        return
    place = folder.with_name(f"{folder.name}.{os.getpid()}.unfinished")
    place.mkdir(parents=True)
    try:
        yield place
        place.rename(folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def save_tokenizer(folder: Path, context: int) -> None:
    """The tokenizer of the project's models, for texts of at most so many tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BEGIN, END, TURN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_text(), trainer)
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise RuntimeError(f"the training text is good for {tokenizer.get_vocab_size()} tokens only")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=END, model_max_length=context
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


def _save_weights(folder: Path) -> None:
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    # One thread: sums in another order would be other bytes.
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        # Tied to the input, random weights would repeat the last token for ever.
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        dtype="bfloat16",
    )
    model: Any = LlamaForCausalLM(config)
    model = model.to(torch.bfloat16)
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    model.generation_config = GenerationConfig(**ends)
    model.save_pretrained(folder, safe_serialization=True)


def main(arguments: list[str]) -> None:
    """Make the model in the folder that is named."""
    if len(arguments) != 1:
        sys.exit("usage: python -m penstock_worker.engine.tiny FOLDER")
    folder = Path(arguments[0])
    make(folder)
    print(json.dumps({"model": str(folder), "bytes": sum(file.stat().st_size for file in folder.iterdir())}))


if __name__ == "__main__":
    main(sys.argv[1:])
