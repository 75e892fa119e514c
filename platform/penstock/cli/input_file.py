"""Input files: JSONL on this machine, on its way to the API, which alone decides what is in it.

The CLI reads it only to find the url of its first request, and takes all that the server takes: blank lines, a BOM,
lines of any length, gzip.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import httpx

from penstock.cli.client import ask
from penstock.formats import encoding
from penstock.formats.gunzip import MAGIC
from penstock.formats.input import tidy
from penstock.stack.problem import Problem


def opened(file: Path) -> BinaryIO:
    """The file for reading; raise Problem."""
    try:
        return file.open("rb")
    except OSError as error:
        raise Problem(f"{file} can't be read: {error.strerror}.") from None


def upload(client: httpx.Client, file: Path) -> str:
    """Send the file as it is; the id that it has there. Raises Problem."""
    with opened(file) as whole:
        files = {"file": (file.name, whole, "application/octet-stream")}
        return str(ask(client, "POST", "/files", files=files, data={"purpose": "batch"}, timeout=None)["id"])


def first_url(file: Path) -> str:
    """What the first request asks; raise Problem, which says what the file is instead."""
    try:
        with _inflated(file) as lines:
            head = lines.read(encoding.HEAD_BYTES)
            lines.seek(0)
            line = _first_line(lines)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Problem(f"{file} begins as gzip does, but can't be inflated: {error}.") from None
    if fault := encoding.fault(head):
        raise Problem(f"{file}: {fault}")
    if line is None:
        raise Problem(f"{file} is empty: it holds no requests.")
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


@contextmanager
def _inflated(file: Path) -> Iterator[BinaryIO]:
    """What the server will read of it: gzip is inflated."""
    with opened(file) as plain:
        packed = plain.read(len(MAGIC)) == MAGIC
        plain.seek(0)
        yield cast(BinaryIO, gzip.GzipFile(fileobj=plain)) if packed else plain


def _first_line(lines: BinaryIO) -> bytes | None:
    """The first line with content, without a BOM and white space around it."""
    for number, raw in enumerate(lines, 1):
        if line := tidy(raw, number):
            return line
    return None
