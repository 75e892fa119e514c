"""Encodings: what a file is that is no JSONL in UTF-8, named once, since of its lines none can be read."""

from __future__ import annotations

import codecs
from typing import Final

HEAD_BYTES: Final = 64 * 1024
"""So much of a file's beginning is looked at."""

_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_BINARIES: Final = (
    (b"PK\x03\x04", "a ZIP archive (or a spreadsheet)"),
    (b"PAR1", "a Parquet file"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ", "compressed with xz"),
    (b"%PDF", "a PDF"),
    (b"SQLite format 3", "an SQLite database"),
)
_SAVE: Final = "Save it as JSON Lines in UTF-8, one request a line."


def fault(head: bytes) -> str | None:
    """What is wrong with a whole file, by its first bytes; None if nothing is that they show."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return f"The file is {name}, not UTF-8. {_SAVE}"
    for magic, name in _BINARIES:
        if head.startswith(magic):
            return f"The file is {name}. {_SAVE}"
    if head[:64].count(0) >= len(head[:64]) // 3 > 0:
        return f"The file is UTF-16 or UTF-32, not UTF-8, or no text. {_SAVE}"
    if b"\0" in head:
        return f"The file is no text: it holds NUL bytes. {_SAVE}"
    return _not_utf8(head) or _no_lines(head)


def _not_utf8(head: bytes) -> str | None:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # a character that the look cuts is no fault
    except UnicodeDecodeError as error:
        line = head.count(b"\n", 0, error.start) + 1
        return (
            f"The file is not UTF-8: line {line} has the byte {head[error.start]:#04x}, as files in Windows-1252 or "
            f"Latin-1 have. {_SAVE}"
        )
    return None


def _no_lines(head: bytes) -> str | None:
    if head.removeprefix(codecs.BOM_UTF8).lstrip(b" \t\r\n").startswith(b"["):
        return f"The file is a JSON array, not JSON Lines. {_SAVE}"
    return None
