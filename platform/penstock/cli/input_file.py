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
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from penstock.cli.client import ask
from penstock.domain.file import BATCH
from penstock.domain.inference_endpoints import BATCHED
from penstock.formats import encoding
from penstock.formats.gunzip import MAGIC
from penstock.stack.problem import Problem

if TYPE_CHECKING:
    import httpx

_MOST_SKIPPED: Final = 10_000
"""Of a file whose lines are all bad so many are looked at: the server says of each what is wrong with it."""


_MOST_LINE_BYTES: Final = 256 * 1024**2


def opened(file: Path) -> BinaryIO:
    """The file for reading, more than once; raise Problem."""
    try:
        found = file.open("rb")
    except OSError as error:
        raise Problem(f"{file} can't be read: {error.strerror}.") from None
    if not found.seekable():
        found.close()
        raise Problem(f"{file} is a pipe, and is read more than once: write it to a file first.")
    return found


def upload(client: httpx.Client, file: Path) -> str:
    """Send the file of a batch as it is; the id that it has there. Raises Problem."""
    return str(send(client, file, BATCH)["id"])


def send(client: httpx.Client, file: Path, purpose: str) -> dict[str, Any]:
    """Send a file as it is; the API's object of it. Raises Problem."""
    import h11
    import httpx

    with opened(file) as whole:
        name = file.name.encode(errors="backslashreplace").decode()  # a name may be any bytes
        files = {"file": (name, whole, "application/octet-stream")}
        try:
            sent: dict[str, Any] = ask(client, "POST", "/files", files=files, data={"purpose": purpose}, timeout=None)
        except (httpx.LocalProtocolError, h11.LocalProtocolError):
            raise Problem(f"{file} has another size than it had: send it once nobody writes to it any more.") from None
    return sent


def first_url(file: Path, *, skipping: bool = False) -> str:
    """What the first request asks (if bad ones are skipped, the first good one); raise Problem, which says why not."""
    with inflated(file) as lines:
        head = lines.read(encoding.HEAD_BYTES)
        lines.seek(0)
        line = next(_lines(lines), None)
        if skipping:
            lines.seek(0)
            line = next((one for one in islice(_lines(lines), _MOST_SKIPPED) if _asks_something(one)), line)
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
def inflated(file: Path) -> Iterator[BinaryIO]:
    """What the server will read of it: gzip is inflated; raises Problem if that is broken."""
    with opened(file) as plain:
        packed = plain.read(len(MAGIC)) == MAGIC
        plain.seek(0)
        try:
            yield cast(BinaryIO, gzip.GzipFile(fileobj=plain)) if packed else plain
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Problem(f"{file} begins as gzip does, but can't be inflated: {error}.") from None


def numbered(lines: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The lines with content, with their physical numbers from 1, without a BOM and white space around them.

    Raises Problem at a line that is longer than any server takes: a few bytes of gzip may hold gigabytes of it.
    """
    from penstock.formats.input import tidy

    number = 0
    while raw := lines.readline(_MOST_LINE_BYTES + 1):
        number += 1
        if len(raw) > _MOST_LINE_BYTES:
            raise Problem(f"Line {number} is longer than {_MOST_LINE_BYTES:,} bytes: it is no request.")
        if line := tidy(raw, number):
            yield number, line


def _lines(lines: BinaryIO) -> Iterator[bytes]:
    return (line for _, line in numbered(lines))


def _asks_something(line: bytes) -> bool:
    try:
        request: Any = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(request, dict) and request.get("url") in BATCHED
