"""Adapter arguments: what the arguments of an engine say about LoRA adapters, in vLLM's own words.

--enable-lora           it takes adapters
--max-loras 2           so many at once; one unless it says more
--max-lora-rank 16      of this rank at most
--lora-modules …        its own, from the start: then it is loaded with no others
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

DEFAULT_RANK: Final = 16


def slots(arguments: Sequence[str]) -> int:
    """How many adapters it holds at once, of those that are loaded while it runs; 0: it takes none.

    Raises ValueError for a number that is none.
    """
    if not _has(arguments, "--enable-lora") or _has(arguments, "--lora-modules"):
        return 0
    return _number(arguments, "--max-loras", 1)


def most_rank(arguments: Sequence[str]) -> int:
    """The largest rank that it takes. Raises ValueError for a number that is none."""
    return _number(arguments, "--max-lora-rank", DEFAULT_RANK)


def _has(arguments: Sequence[str], name: str) -> bool:
    return any(one.partition("=")[0].replace("_", "-") == name for one in arguments)


def _number(arguments: Sequence[str], name: str, default: int) -> int:
    value: str | None = None
    for place, one in enumerate(arguments):
        flag, equals, attached = one.partition("=")
        if flag.replace("_", "-") == name:
            value = attached if equals else next(iter(arguments[place + 1 : place + 2]), "")
    if value is None:
        return default
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"{name} must be a whole number above 0, not {value!r}.")
    return int(value)
