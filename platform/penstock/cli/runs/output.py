"""OUT: the lines of all parts in the order of the input, failed ones in their place or in a file of their own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from penstock.cli.own_files import part_of
from penstock.cli.places.sidecar import Part
from penstock.cli.runs.requests_file import placed
from penstock.stack.problem import Problem


class _OutputError(msgspec.Struct):
    line: int | None = None


class _OutputLine(msgspec.Struct):
    custom_id: str | None = None
    error: _OutputError | None = None


_read = msgspec.json.Decoder(_OutputLine).decode


@dataclass(frozen=True)
class OutputCounts:
    """How a run ended."""

    answered: int
    failed: int

    def __str__(self) -> str:
        return f"{self.answered:,} answered, {self.failed:,} failed"


class _Head:
    """The next line of a result file."""

    def __init__(self, file: BinaryIO) -> None:
        self._lines = iter(file)
        self.text = b""
        self.custom_id: str | None = None
        self.line: int | None = None
        self.step()

    def step(self) -> None:
        self.text = next(self._lines, b"")
        if self.text:
            read = _read(self.text)
            self.custom_id, self.line = read.custom_id, read.error.line if read.error else None


def write(
    file: Path, parts: Sequence[Part], results: Sequence[tuple[Path, Path]], out: Path, errors: Path | None
) -> OutputCounts:
    """Write OUT, and the failed lines to `errors` if it is given; both are there only once they are whole.

    `results` are each part's answered and failed lines, in the part's order. Raises Problem if a line has neither.
    """
    try:
        with ExitStack() as stack:
            good, bad = _fresh(stack, out), _fresh(stack, errors) if errors else None
            heads = [tuple(_Head(stack.enter_context(one.open("rb"))) for one in pair) for pair in results]
            answered = failed = 0
            for at, number, request in placed(file, parts):
                answer, error = heads[at]
                if error.text and _is(error, number, request.custom_id):
                    (bad or good).write(error.text)
                    error.step()
                    failed += 1
                elif answer.text and answer.custom_id == request.custom_id:
                    good.write(answer.text)
                    answer.step()
                    answered += 1
                else:
                    raise Problem(f"Line {request.number} of {file} has no result at the server: say --fresh.")
        for target in (errors, out):
            if target:
                _beside(target).replace(target)
    except OSError as error:
        raise Problem(f"{out} can't be written: {error.strerror}.") from None
    return OutputCounts(answered, failed)


def _is(error: _Head, number: int, custom_id: str | None) -> bool:
    """Whether a failed line is this one: those that validation refused say their number, which no other has."""
    return error.line == number if error.line is not None else error.custom_id == custom_id


def _fresh(stack: ExitStack, target: Path) -> Any:
    return stack.enter_context(_beside(target).open("wb"))


def _beside(target: Path) -> Path:
    return part_of(target, "new")
