"""Answers of rows: the lines of a batch's output and error file, as values of the new columns or a reason."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec

from penstock.cli.tables.answer_schema import AnswerMismatch, AnswerSchema
from penstock.cli.tables.column import Column, ColumnKind, storable
from penstock.cli.tables.row_requests import row_number

_MOST_REASON_CHARACTERS: Final = 500
_MOST_64: Final = 2**63 - 1
_MOST_EXACT: Final = 2**53
"""The largest number up to which every whole one is a float."""


class _Id(msgspec.Struct):
    custom_id: str


_id_of = msgspec.json.Decoder(_Id).decode


@dataclass(frozen=True)
class RowAnswer:
    """What came back for one row: what the model said, or why it said nothing."""

    number: int
    text: str | None
    reason: str | None


RowOf = Callable[[int], int]
"""The row that a line of a batch's input is of; lines count from 1."""


def merged(output: Iterable[bytes], errors: Iterable[bytes], row_of: RowOf) -> Iterator[RowAnswer]:
    """The lines of both files of a batch, each in the order of its rows, as one sequence in that order."""
    read = partial(read_line, row_of=row_of)
    return heapq.merge(map(read, output), map(read, errors), key=lambda one: one.number)


def read_line(line: bytes, row_of: RowOf) -> RowAnswer:
    """One line of an output or error file; one that was refused unread has no custom_id, but its line's number."""
    try:
        one = json.loads(line)
    except (ValueError, RecursionError) as error:  # an engine answered a number of thousands of digits
        return RowAnswer(row_number(_id_of(line).custom_id), None, _reason(None, f"its answer can't be read: {error}"))
    number = row_of(one["error"]["line"]) if one["custom_id"] is None else row_number(one["custom_id"])
    return _read(number, one)


def _read(number: int, one: dict[str, Any]) -> RowAnswer:
    response = one["response"]
    if response is None:
        error = one["error"] or {}
        return RowAnswer(number, None, _reason(error.get("code"), error.get("message")))
    body = response["body"]
    if response["status_code"] != 200:
        error = body.get("error") if isinstance(body, dict) else None
        said = error if isinstance(error, dict) else {"message": str(body)}
        return RowAnswer(number, None, _reason(response["status_code"], said.get("message")))
    try:
        choice = body["choices"][0]
        text, refusal = choice["message"].get("content"), choice["message"].get("refusal")
    except (LookupError, TypeError, AttributeError):
        return RowAnswer(number, None, "the engine's answer is no chat completion")
    if not text:
        why = f"refused: {refusal}" if refusal else f"the answer is empty ({choice.get('finish_reason')})"
        return RowAnswer(number, None, _reason(None, why))
    if not isinstance(text, str):
        return RowAnswer(number, None, "the engine's answer is no text")
    return RowAnswer(number, storable(text), None)


@dataclass(frozen=True)
class NewColumns:
    """The columns that answers become, with the reason of those that did not as the last of them."""

    schema: AnswerSchema | None
    column: str
    """The name of the one column, if no schema makes several."""
    prefix: str = ""

    @property
    def columns(self) -> tuple[Column, ...]:
        """All new columns, in order."""
        kind = self.schema.kind if self.schema else ColumnKind.TEXT
        made = (self.schema.properties if self.schema else ()) or (Column(self.column, kind),)
        reason = "error"
        while any(one.name == reason for one in made):
            reason = f"map_{reason}"
        return tuple(Column(self.prefix + one.name, one.kind) for one in (*made, Column(reason)))

    def failed(self, reason: str) -> list[Any]:
        """The values of a row that has no answer."""
        return [None] * (len(self.columns) - 1) + [reason]

    def values(self, answer: RowAnswer) -> list[Any]:
        """The values of a row: the answer's, once it was checked, or nothing and the reason."""
        if answer.text is None:
            return self.failed(answer.reason or "no reason is given")
        if self.schema is None:
            return [answer.text, None]
        try:
            value = self.schema.checked(answer.text)
        except AnswerMismatch as error:
            return self.failed(f"schema: {error}")
        if self.schema.properties and not isinstance(value, dict):
            return self.failed("schema: it is no object")
        made = [value.get(one.name) for one in self.schema.properties] if self.schema.properties else [value]
        for place, (column, one) in enumerate(zip(self.columns, made, strict=False)):
            if one is not None and column.kind is ColumnKind.INTEGER:
                if abs(one) > _MOST_64:
                    return self.failed(f"schema: {column.name} has more than 64 bits")
                made[place] = int(one)  # 1.0 is an integer to a JSON schema
            elif one is not None and column.kind is ColumnKind.NUMBER:
                try:
                    made[place] = float(one) if abs(one) > _MOST_EXACT else one
                except OverflowError:
                    return self.failed(f"schema: {column.name} is larger than any number of 64 bits")
        return [*made, None]


def _reason(code: Any, message: Any) -> str:
    words = " ".join(str(message or "").split())
    whole = ": ".join(part for part in (str(code or ""), words) if part) or "no reason is given"
    return storable(whole if len(whole) <= _MOST_REASON_CHARACTERS else whole[: _MOST_REASON_CHARACTERS - 1] + "…")
