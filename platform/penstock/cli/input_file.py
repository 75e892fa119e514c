"""Input files: JSONL on this machine, on its way to the API, which alone decides what is in it.

The CLI reads it only to find the url of its first request, and takes all that the server takes: blank lines, a BOM,
lines of any length.
"""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any, BinaryIO, Final

from penstock.stack.problem import Problem

_ENCODINGS: Final = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_KINDS: Final = (
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PAR1", "Parquet"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_WHITE: Final = b" \t\r\n"


def opened(file: Path) -> BinaryIO:
    """The file for reading; raise Problem."""
    try:
        return file.open("rb")
    except OSError as error:
        raise Problem(f"{file} can't be read: {error.strerror}.") from None


def first_url(file: Path) -> str:
    """What the first request asks; raise Problem, which says what the file is instead."""
    with opened(file) as lines:
        line = _first_line(lines)
    if line is None:
        raise Problem(f"{file} is empty: it holds no requests.")
    if what := _no_text(line):
        raise Problem(f"{file} is {what}, not JSONL: one JSON object a line, in UTF-8.")
    if line.startswith(b"["):
        raise Problem(f"{file} is a JSON array: a batch takes JSONL, one request a line and no brackets around them.")
    try:
        request: Any = json.loads(line)
    except (ValueError, RecursionError):
        if line == b"{":
            raise Problem(f"{file} has a JSON object over several lines: a batch takes one request a line.") from None
        raise Problem(f"The first line of {file} is not parseable as JSON.") from None
    if not isinstance(request, dict):
        raise Problem(f"The first line of {file} is no JSON object: a batch takes one request a line.")
    if not isinstance(request.get("url"), str):
        raise Problem(f"The first line of {file} names no url: say --endpoint.")
    return str(request["url"])


def _first_line(lines: BinaryIO) -> bytes | None:
    """The first line with content, without a BOM and white space around it."""
    for number, raw in enumerate(lines):
        if line := (raw.removeprefix(codecs.BOM_UTF8) if number == 0 else raw).strip(_WHITE):
            return line
    return None


def _no_text(line: bytes) -> str | None:
    """What it is, if it is not UTF-8."""
    for mark, name in (*_ENCODINGS, *_KINDS):
        if line.startswith(mark):
            return name
    if b"\0" in line:
        return "binary, or UTF-16"
    try:
        line.decode()
    except UnicodeDecodeError:
        return "not UTF-8"
    return None
