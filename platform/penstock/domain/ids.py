"""Ids: a prefix that says what a thing is, and 26 characters that sort by time of birth."""

from __future__ import annotations

import hashlib
from typing import Final

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"


def sortable_id(prefix: str, unix_ms: int, entropy: bytes) -> str:
    """Make an id of 48 bits of time and 80 bits of chance (a ULID, lower case), e.g. `batch_01k…`."""
    if len(entropy) != 10:
        raise ValueError("an id takes 10 bytes of chance")
    number = (unix_ms << 80) | int.from_bytes(entropy, "big")
    return prefix + "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -5, -5))


def line_id(batch: str, line: int) -> str:
    """The id of one output line: the same however often the line is written."""
    return "batch_req_" + hashlib.sha256(f"{batch}:{line}".encode()).hexdigest()[:24]
