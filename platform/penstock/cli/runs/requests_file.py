"""The file of a run: which endpoints its lines ask, in what parts it is sent, and which part each line belongs to.

A batch has one endpoint, and a bound on its lines and bytes: a file of several is sent in parts, each a batch of its
own, whose lines stand in the file's order.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock.cli.input_file import first_url, inflated, numbered
from penstock.cli.places.sidecar import Part
from penstock.domain.inference_endpoints import BATCHED, named
from penstock.stack.problem import Problem

_HASH_BYTES: Final = 1024 * 1024


class _Asked(msgspec.Struct):
    url: Any = None
    custom_id: Any = None


_read = msgspec.json.Decoder(_Asked).decode


@dataclass(frozen=True)
class Request:
    """One line of the file."""

    number: int
    """Its physical line in the file, from 1."""
    text: bytes
    url: str | None
    """The table's name of its endpoint; None if it names none that batches have, or can't be read."""
    custom_id: str | None
    asks: str = ""
    """The url that it names, whatever it is."""

    @property
    def fault(self) -> str:
        """Why it has no url, for a person."""
        if self.asks:
            return f"asks {self.asks}, which no batch can: there are {', '.join(BATCHED)}"
        return "can't be asked: it is no JSON object with a url"


@dataclass
class Survey:
    """What was seen of a file before it is sent."""

    parts: list[Part] = field(default_factory=list)
    odd: Request | None = None
    """The first line that asks what no batch can."""


def digest(file: Path) -> str:
    """SHA-256 of the file as it lies there. Raises Problem."""
    found = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            while piece := opened.read(_HASH_BYTES):
                found.update(piece)
    except OSError as error:
        raise Problem(f"{file} can't be read: {error.strerror}.") from None
    return found.hexdigest()


def survey(file: Path, most_lines: int, most_bytes: int) -> Survey:
    """Read the file once: its parts, in the order in which they begin. Raises Problem."""
    if named(first := first_url(file, skipping=True)) not in BATCHED:
        raise Problem(f"{file} asks {first}, which no batch can: there are {', '.join(BATCHED)}.")
    found, filling = Survey(), dict[str, tuple[Part, int]]()
    for request in requests(file):
        if request.url is None and found.odd is None:
            found.odd = request
        endpoint, size = request.url or named(first), len(request.text) + 1
        part, bytes_so_far = filling.get(endpoint, (None, 0))
        if part is None or part.lines >= most_lines or bytes_so_far + size > most_bytes:
            part, bytes_so_far = Part(endpoint, 0), 0
            found.parts.append(part)
        part.lines += 1
        filling[endpoint] = (part, bytes_so_far + size)
    return found


def requests(file: Path) -> Iterator[Request]:
    """The lines with content, in order. Raises Problem."""
    with _readable(file), inflated(file) as opened:
        for number, text in numbered(opened):
            try:
                asked = _read(text)
            except (msgspec.DecodeError, RecursionError):
                yield Request(number, text, None, None)
                continue
            url = named(asked.url) if isinstance(asked.url, str) else ""
            custom_id = asked.custom_id if isinstance(asked.custom_id, str) else None
            yield Request(number, text, url if url in BATCHED else None, custom_id, url)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Problem(f"{file} begins as gzip does, but can't be inflated: {error}.") from None


def placed(file: Path, parts: Sequence[Part]) -> Iterator[tuple[int, int, Request]]:
    """Each request with the number of its part, and its line number as its part's batch knows it. Raises Problem."""
    taken, current = [0] * len(parts), dict[str, int]()
    for request in requests(file):
        endpoint = request.url or parts[0].endpoint
        at = current.get(endpoint, -1)
        if at < 0 or taken[at] >= parts[at].lines:
            at = next((n for n in range(at + 1, len(parts)) if parts[n].endpoint == endpoint), -1)
            if at < 0:
                raise Problem(f"{file} was changed meanwhile: bring back what it was, or say --fresh.")
            current[endpoint] = at
        taken[at] += 1
        yield at, request.number if len(parts) == 1 else taken[at], request


def write_part(file: Path, parts: Sequence[Part], number: int, target: Path) -> Path:
    """Write one part's lines to a file of their own, unless the file has no other. Raises Problem."""
    if len(parts) == 1:
        return file
    try:
        with target.open("wb") as opened:
            for at, _, request in placed(file, parts):
                if at == number:
                    opened.write(request.text + b"\n")
    except OSError as error:
        raise Problem(f"{target} can't be written: {error.strerror}.") from None
    return target
