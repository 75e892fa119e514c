"""Sequences: how many texts an engine works on at once for one request, which takes as many of its slots.

Choices (`n`, `best_of`) are told in OpenAI's contract, lists of prompts, inputs and documents in vLLM's and OpenAI's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

MOST: Final = 16_384
_MOST_DIGITS: Final = 8
_LISTS: Final = ("prompt", "input", "documents", "text_2", "data_2", "items")
_BESIDE: Final = {"items": "queries", "text_2": "text_1", "data_2": "data_1"}
"""They mean something beside another one alone."""
_CHOICES: Final = ("n", "best_of")
_MANY: Final = re.compile(rb'"(?:n|best_of)"\s*:|"(?:prompt|input|documents|text_2|data_2|items)"\s*:\s*\[|\\u')
"""Most bodies ask for one text, and need not be read to know it. A name can be written with escapes."""

_read_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_read = msgspec.json.Decoder().decode


def of_body(body: bytes) -> int:
    """How many sequences a body asks for; 1 if it can't be read: an engine refuses it."""
    if not _MANY.search(body):
        return 1
    try:
        return of_fields(_read_fields(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 1


def of_fields(fields: Mapping[str, msgspec.Raw]) -> int:
    """The same of a body's fields."""
    asked = max(choices(_number(fields.get(name))) for name in _CHOICES)
    named = (name for name in _LISTS if _BESIDE.get(name, name) in fields)
    return min(MOST, asked * max((texts(fields.get(name)) for name in named), default=1))


def choices(value: Any) -> int:
    """What a number of choices means; 1 if it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST else 1


def texts(raw: msgspec.Raw | None) -> int:
    """How many texts stand in a list; token numbers are one text, and so is a conversation."""
    if raw is None or bytes(memoryview(raw)[:1]) != b"[":
        return 1
    items = _read_items(raw)
    first = bytes(memoryview(items[0])[:1]) if items else b""
    return len(items) if first in (b'"', b"[") else 1


def _number(raw: msgspec.Raw | None) -> Any:
    return None if raw is None or len(bytes(raw)) > _MOST_DIGITS else _read(raw)
