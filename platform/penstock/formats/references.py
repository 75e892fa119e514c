"""References: what is expected of a line: `{"custom_id": …, "expected": …}`, or `expected` in the line itself."""

from __future__ import annotations

import json
from typing import Any

import msgspec


class _Reference(msgspec.Struct):
    custom_id: Any = None
    expected: msgspec.Raw = msgspec.Raw()  # empty where it is missing


_read = msgspec.json.Decoder(_Reference).decode


def read(line: bytes) -> tuple[str, bytes]:
    """The custom_id and the JSON that is expected, of one line of a reference file; raise ValueError, with why."""
    try:
        line.decode()
        found = _read(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("it is no JSON object") from None
    if not isinstance(found.custom_id, str) or not found.custom_id:
        raise ValueError("it has no custom_id that is a text")
    if not bytes(found.expected):
        raise ValueError("it has no 'expected'")
    if not _is_readable(bytes(found.expected)):
        raise ValueError("its 'expected' is no JSON that can be read")
    return found.custom_id, bytes(found.expected)


def expected_in(line: bytes) -> bytes:
    """The JSON that a line of a batch expects; empty if it says nothing of that, or nothing that can be read."""
    try:
        found = bytes(_read(line).expected)
    except (msgspec.DecodeError, RecursionError):
        return b""
    return found if found and _is_readable(found) else b""


def _is_readable(value: bytes) -> bool:
    """Also by Python's own JSON, which scorers compare with, and which reads less deep and fewer digits."""
    try:
        json.dumps(msgspec.json.decode(value), sort_keys=True)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    return True
