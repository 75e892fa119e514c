"""Merged results: the answers and errors of an ended batch or job as one list of lines, in the order of its input.

Output and error file are in that order both, and each line is in one of them; a line's id says its number in the input
(domain/ids.py). Of a retry they have the lines of the whole chain, whose order is that of the lines where it begins.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, count
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from penstock.cli.client import ask
from penstock.cli.results import lines_of, pieces
from penstock.cli.watch import path
from penstock.domain.ids import line_id
from penstock.formats import ended
from penstock.formats.ended import EndedLine
from penstock.stack.problem import Problem

if TYPE_CHECKING:
    import httpx

_MOST_BLANK_LINES: Final = 10_000_000
"""Between two lines of an input; a file has a million lines at most, unless the operator allows more."""
_PIECE_BYTES: Final = 1 << 20


def merged(client: httpx.Client, one: dict[str, Any]) -> Iterator[bytes]:
    """All lines of an ended batch or job, with their line ends; of a retry, those of its chain. Raises Problem."""
    if one["parent_batch_id"] is None:
        return (line.line + b"\n" for line in _own(client, one))
    files = one["merged_output_file_id"], one["merged_error_file_id"]
    if files == (None, None):
        raise Problem(f"{one['id']} has no merged results: it ended before it was validated.")
    return (line.line + b"\n" for line in _in_order(client, _own(client, _root(client, one)), files))


def _root(client: httpx.Client, one: dict[str, Any]) -> dict[str, Any]:
    while one["parent_batch_id"] is not None:
        one = ask(client, "GET", path(one["parent_batch_id"]))
    return one


def _own(client: httpx.Client, one: dict[str, Any]) -> Iterator[EndedLine]:
    if one.get("results") is not None:
        yield from map(ended.read, (line.rstrip(b"\n") for line in lines_of(one)))
        return
    last = 0
    with _heads(client, one["output_file_id"], one["error_file_id"]) as heads:
        for number in count(1):
            if heads.done:
                return
            found = heads.take_id(line_id(one["id"], number))
            if found is not None:
                last = number
                yield found
            elif number - last > _MOST_BLANK_LINES:
                raise Problem(f"The results of {one['id']} are not in the order of its input.")


def _in_order(
    client: httpx.Client, order: Iterable[EndedLine], files: tuple[str | None, str | None]
) -> Iterator[EndedLine]:
    with _heads(client, *files) as heads:
        for line in order:
            found = heads.take(line)
            if found is None:
                raise Problem(f"The merged results lack the line {line.custom_id!r} where it should be.")
            yield found


@contextmanager
def _heads(client: httpx.Client, output: str | None, errors: str | None) -> Iterator[_Heads]:
    """The error file is fetched first: one that nobody reads for a minute, while the other is read, would be cut."""
    with tempfile.TemporaryFile() as kept:
        kept.writelines(pieces(client, errors))
        kept.seek(0)
        yield _Heads(_read(pieces(client, output)), _read(_pieces_of(kept)))


class _Heads:
    """The next line of an output file, and of an error file."""

    def __init__(self, *strands: Iterator[EndedLine]) -> None:
        self._strands = strands
        self._heads = [next(strand, None) for strand in self._strands]

    @property
    def done(self) -> bool:
        """Nothing is left."""
        return self._heads == [None, None]

    def take_id(self, id: str) -> EndedLine | None:
        """The next line of a file, if it has this id."""
        return self._take(lambda head: head.id == id)

    def take(self, line: EndedLine) -> EndedLine | None:
        """The next line that is the same, or a retry of it; validation's refusals are never retried."""
        same = self.take_id(line.id)
        if same is not None or line.skipped is not None:
            return same
        return self._take(lambda head: head.skipped is None and head.custom_id == line.custom_id)

    def _take(self, is_it: Callable[[EndedLine], bool]) -> EndedLine | None:
        for place, head in enumerate(self._heads):
            if head is not None and is_it(head):
                self._heads[place] = next(self._strands[place], None)
                return head
        return None


def _read(pieces: Iterable[bytes]) -> Iterator[EndedLine]:
    rest = b""
    for piece in chain(pieces, [b""]):
        *whole, rest = (rest + piece).split(b"\n")
        try:
            yield from map(ended.read, whole)
        except (ValueError, KeyError) as error:
            raise Problem(f"A result is no output line: {error}.") from None


def _pieces_of(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE_BYTES):
        yield piece
