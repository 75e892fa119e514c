"""Answers of rows: the lines of a batch's output and error file, as values of the new columns or a reason."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from penstock.cli.tables.answer_schema import AnswerMismatch, AnswerSchema
from penstock.cli.tables.column import Column, ColumnKind
from penstock.cli.tables.row_requests import row_number

_MOST_REASON_CHARACTERS: Final = 500
_MOST_64: Final = 2**63 - 1


@dataclass(frozen=True)
class RowAnswer:
    """What came back for one row: what the model said, or why it said nothing."""

    number: int
    text: str | None
    reason: str | None


def merged(output: Iterable[bytes], errors: Iterable[bytes]) -> Iterator[RowAnswer]:
    """The lines of both files of a batch, each in the order of its rows, as one sequence in that order."""
    return heapq.merge(map(read_line, output), map(read_line, errors), key=lambda one: one.number)


def read_line(line: bytes) -> RowAnswer:
    """One line of an output or error file."""
    one = json.loads(line)
    number, response = row_number(one["custom_id"]), one["response"]
    if response is None:
        error = one["error"] or {}
        return RowAnswer(number, None, _reason(error.get("code"), error.get("message")))
    body = response["body"]
    if response["status_code"] != 200:
        error = body.get("error") if isinstance(body, dict) else None
        said = error if isinstance(error, dict) else {"message": str(body)}
        return RowAnswer(number, None, _reason(response["status_code"], said.get("message")))
    choice = body["choices"][0]
    text = choice["message"].get("content")
    if not text:
        refusal = choice["message"].get("refusal")
        why = f"refused: {refusal}" if refusal else f"the answer is empty ({choice.get('finish_reason')})"
        return RowAnswer(number, None, _reason(None, why))
    return RowAnswer(number, _storable(text), None)


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
        reason = "error" if all(one.name != "error" for one in made) else "map_error"
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
                made[place] = float(one) if abs(one) > _MOST_64 else one
        return [*made, None]


def _reason(code: Any, message: Any) -> str:
    words = " ".join(str(message or "").split())
    whole = ": ".join(part for part in (str(code or ""), words) if part) or "no reason is given"
    return _storable(whole if len(whole) <= _MOST_REASON_CHARACTERS else whole[: _MOST_REASON_CHARACTERS - 1] + "…")


def _storable(text: str) -> str:
    """The text in UTF-8, which has no half surrogate pairs."""
    return text.encode(errors="backslashreplace").decode()
