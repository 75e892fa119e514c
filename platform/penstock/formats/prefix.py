"""Prefixes: what an engine reads of a request, in its order, and hashes of its beginnings.

Requests whose prompts begin alike have their first hashes in common, as many as the common part is long; engines keep
what they computed of a beginning (vLLM: prefix caching, in blocks of tokens), so such requests belong side by side.
The parts are taken as they were written: a file's lines come from one program, which writes the same thing alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Final
from zlib import crc32

import msgspec

LEAST_BYTES: Final = 256
"""About a KV block or two (64 tokens): what is shorter is not worth an order."""
_STEP: Final = 1.5
_MOST_BYTES: Final = 64 * 1024
_DEPTHS: Final = tuple(
    int(LEAST_BYTES * _STEP**step) for step in range(64) if LEAST_BYTES * _STEP**step < _MOST_BYTES
)  # at most a third of what two prompts share lies behind the last depth that they share
MOST_BEGINNINGS: Final = 24
_LEAST_TURN_BYTES: Final = 64


class PromptFields(msgspec.Struct, frozen=True):
    """The fields of a body that an engine makes its input of, as they were written; empty where they are missing."""

    cache_salt: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    instructions: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


_read_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def beginnings(prompt: PromptFields) -> list[int]:
    """Hashes (32 bits) of the prompt's beginnings, the shortest first; none if it is short.

    They end at fixed depths, each half as deep again as the one before, and where a message ends: after the system
    prompt, after each example. Where one ends depends on nothing that comes after it, so the n-th of two prompts are
    equal if and only if all before are (but for chance, which costs order only).
    """
    pieces = list(_pieces(prompt))
    text = memoryview(b"".join(pieces))
    if len(text) < LEAST_BYTES:
        return []
    found: list[int] = []
    hashed = last = 0
    for end in _ends(list(accumulate(map(len, pieces)))):
        if len(found) == MOST_BEGINNINGS:
            break
        hashed, last = crc32(text[last:end], hashed), end
        found.append(hashed)
    return found


def _pieces(prompt: PromptFields) -> Iterator[bytes]:
    for raw in (prompt.cache_salt, prompt.tools, prompt.instructions):
        if raw:
            yield raw
    for raw in (prompt.messages, prompt.prompt, prompt.input):
        if raw:
            yield from _turns(raw)


def _turns(raw: msgspec.Raw) -> list[msgspec.Raw]:
    """A list's members, else the whole: what is no list of messages is checked by the engine."""
    try:
        return _read_list(raw)
    except (msgspec.DecodeError, RecursionError):
        return [raw]


def _ends(turns: list[int]) -> Iterator[int]:
    """Where beginnings end: at the depths, and at the ends of messages that are not close behind another."""
    last, depth = 0, 0
    for turn in turns:
        while depth < len(_DEPTHS) and _DEPTHS[depth] < turn:
            last = max(last, _DEPTHS[depth])
            yield _DEPTHS[depth]
            depth += 1
        if turn >= LEAST_BYTES and turn - last >= max(_LEAST_TURN_BYTES, last // 8):
            last = turn
            yield turn
