"""Requests of rows: a table's chosen rows as lines of batch input files, cut where a file would be too large."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from penstock.cli.tables.answer_schema import AnswerSchema
from penstock.cli.tables.column import as_json
from penstock.cli.tables.input_table import InputTable, Row
from penstock.cli.tables.prompt_template import PromptTemplate, RowFault
from penstock.cli.tables.row_choice import RowChoice
from penstock.stack.problem import Problem

ENDPOINT: Final = "/v1/chat/completions"
MOST_LINES: Final = 100_000
MOST_BYTES: Final = 256 * 1024**2
"""Of one file: about a tenth of what a platform takes, unless its operator says otherwise."""

_MOST_DIGITS: Final = 18


@dataclass(frozen=True)
class RowPrompts:
    """What a row is asked: the user's words, and the system's before them."""

    prompt: PromptTemplate
    system: PromptTemplate | None = None

    def messages(self, row: Row) -> list[dict[str, str]]:
        """The chat that a row begins; raise RowFault if it can't be made of this row."""
        messages = [{"role": "system", "content": self.system.filled(row)}] if self.system else []
        return [*messages, {"role": "user", "content": self.prompt.filled(row)}]


@dataclass(frozen=True)
class RowRequest:
    """One chosen row: its line of an input file, or why there is none."""

    number: int
    line: bytes | None
    fault: str | None = None


@dataclass
class RowRequests:
    """The requests of a table's chosen rows, made as they are wanted."""

    table: InputTable
    choice: RowChoice
    prompts: RowPrompts
    body: dict[str, Any]
    """All of a request's body but its messages."""

    def starting(self, first: int) -> Iterator[RowRequest]:
        """The chosen rows from this number on."""
        for chunk in self.table.chunks():
            for number, row in enumerate(chunk.rows, chunk.first):
                if number >= self.choice.rows:
                    return
                if number >= first and self.choice.takes(number):
                    yield self.of(number, row)

    def of(self, number: int, row: Row) -> RowRequest:
        """The request of one row."""
        try:
            body = self.body | {"messages": self.prompts.messages(row)}
        except RowFault as fault:
            return RowRequest(number, None, f"template: {fault}")
        line = {"custom_id": custom_id(number), "method": "POST", "url": ENDPOINT, "body": body}
        return RowRequest(number, as_json(line).encode() + b"\n")


@dataclass(frozen=True)
class RequestFile:
    """Some requests, in a file."""

    end_row: int
    """The row behind the last of them."""
    lines: int


def cut(
    requests: Iterable[RowRequest], file: Path, most_lines: int, most_bytes: int = MOST_BYTES
) -> Iterator[RequestFile]:
    """Write the requests to the file, as many as one may hold; once that was taken, write the next ones there.

    Rows without a request are passed over. Raises Problem if the file can't be written.
    """
    end_row = lines = size = 0
    writer: BinaryIO | None = None
    try:
        for one in requests:
            if one.line is None:
                continue
            if writer and (lines >= most_lines or size + len(one.line) > most_bytes):
                writer.close()
                writer = None
                yield RequestFile(end_row, lines)
            if writer is None:
                writer, lines, size = file.open("wb"), 0, 0
            writer.write(one.line)
            end_row, lines, size = one.number + 1, lines + 1, size + len(one.line)
        if writer:
            writer.close()
            writer = None
            yield RequestFile(end_row, lines)
    except OSError as error:
        raise Problem(f"{file} can't be written: {error.strerror}.") from None
    finally:
        if writer:
            writer.close()
        file.unlink(missing_ok=True)


def custom_id(number: int) -> str:
    """A row's name in a batch; people count from 1."""
    return f"row-{number + 1}"


def row_number(custom_id: str) -> int:
    """The row that a batch's line is of. Raises Problem."""
    name, dash, number = custom_id.partition("-")
    if (name, dash) != ("row", "-") or not number.isdecimal() or len(number) > _MOST_DIGITS:
        raise Problem(f"An answer came for {custom_id!r}, which was not asked: say --fresh.")
    return int(number) - 1


def request_body(
    model: str | None,
    max_tokens: int | None,
    temperature: float | None,
    schema: AnswerSchema | None,
    more: dict[str, Any],
) -> dict[str, Any]:
    """All of a request's body but its messages: the same for each row."""
    body: dict[str, Any] = {} if model is None else {"model": model}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    if temperature is not None:
        body["temperature"] = temperature
    if schema:
        named = {"name": "answer", "schema": schema.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    return body | more
