"""The arguments that a user may give to llama.cpp: those of `llama-server` that make sense here, by the same names."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from penstock_worker.engine.launch_spec import BadLaunch

CACHE_TYPES: Final = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
POOLINGS: Final = ("none", "mean", "cls", "last", "rank")
DEFAULT_PARALLEL: Final = 4
"""llama-server's own."""
DEFAULT_CACHE_RAM_MIB: Final = 512
"""What prompts of sequences that ended may keep in RAM; llama-server's 8 GiB is more than a machine may have."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadLaunch(f"llama.cpp can't be started so: {message}. It takes {', '.join(names())}.")


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def _parser() -> _Parser:
    parser = _Parser(prog="llamacpp", add_help=False, allow_abbrev=False)
    add = parser.add_argument
    add("--parallel", "--max-num-seqs", "-np", type=_count)
    add("--ctx-size", "-c", type=_count)
    add("--threads", "-t", type=_count)
    add("--threads-batch", "-tb", type=_count)
    add("--batch-size", "-b", type=_count)
    add("--ubatch-size", "-ub", type=_count)
    add("--n-gpu-layers", "-ngl", type=int)
    add("--cache-type-k", "-ctk", choices=CACHE_TYPES)
    add("--cache-type-v", "-ctv", choices=CACHE_TYPES)
    add("--flash-attn", "-fa", choices=("on", "off", "auto"))
    add("--cache-ram", type=int)
    add("--chat-template-file", type=Path)
    add("--embeddings", action="store_true")
    add("--pooling", choices=POOLINGS)
    add("--hf-file")
    add("--revision")
    return parser


def names() -> list[str]:
    """The long names of all of them."""
    found = (action.option_strings for action in _parser()._actions)
    return sorted(next(name for name in one if name.startswith("--")) for one in found)


def read(arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments' values, None for one that is not given. Raises BadLaunch."""
    return _parser().parse_args(list(arguments))
