"""Answers: what a model said, as a person reads it: its text, the fields of a JSON object, or so many numbers.

A response is shown from its beginning, which may be cut anywhere: what is there of it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from pydantic_core import from_json

from penstock.console import words

MOST_COLUMNS: Final = 12
_MOST_INDENTED: Final = 4
"""Laid out, a text is at most so many times as long, or it stays as it was written."""


@dataclass(frozen=True)
class LineAnswer:
    """What one line was answered."""

    text: str
    fields: Mapping[str, Any] | None = None
    """Of an answer that is a JSON object."""
    counted: bool = False
    """The text only says how many numbers there are."""
    finish_reason: str | None = None


NO_ANSWER: Final = LineAnswer("")


def read(body: str | bytes, cut: bool = False) -> LineAnswer:
    """What a response's body says; of one that nobody can read, the body itself."""
    return _known(_parsed(body, cut), cut) or LineAnswer(
        body if isinstance(body, str) else body.decode("utf-8", "replace")
    )


def say(body: Any, cut: bool) -> LineAnswer:
    """The same of a body that was parsed."""
    return _known(body, cut) or LineAnswer(cell(body))


def columns(answers: Iterable[LineAnswer]) -> tuple[str, ...]:
    """The first keys of answers that are all JSON objects, as they come; none if one is not."""
    keys: dict[str, None] = {}
    for answer in answers:
        if answer.fields is None:
            return ()
        for key in answer.fields:
            if len(keys) < MOST_COLUMNS:
                keys.setdefault(key)
    return tuple(keys)


def cell(value: Any) -> str:
    """A value of a JSON object as text: texts as they are, the rest as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def laid_out(text: str, cut: bool) -> str:
    """JSON with a line for each value; as it was written if it is cut, is no JSON, or would be far longer."""
    if cut:
        return text
    try:
        shown = msgspec.json.format(text, indent=2)
    except (msgspec.MsgspecError, RecursionError):
        return text
    return shown if len(shown) <= max(1_024, _MOST_INDENTED * len(text)) else text


def _parsed(text: str | bytes, cut: bool) -> Any:
    try:
        return from_json(text, allow_partial="trailing-strings" if cut else False)
    except ValueError:
        return None


def _known(body: Any, cut: bool) -> LineAnswer | None:
    if not isinstance(body, dict):
        return None
    try:
        return _said(body, cut)
    except (LookupError, TypeError, AttributeError, ValueError):
        return None


def _said(body: dict[str, Any], cut: bool) -> LineAnswer | None:
    """None where it is nothing that is known here."""
    if choices := body.get("choices"):
        first = choices[0]
        message = first.get("message", {})
        text = message.get("content") if "message" in first else first.get("text")
        if text is None:
            text = message.get("refusal") or cell(message.get("tool_calls") or message)
        return _told(text, cut, first.get("finish_reason"))
    if output := body.get("output"):
        parts = [part for item in output if item.get("type") == "message" for part in item.get("content", ())]
        text = "".join(str(part.get("text") or part.get("refusal") or "") for part in parts)
        return _told(text, cut, body.get("status")) if parts else None
    data = body.get("data")
    if data and "embedding" in data[0]:
        return LineAnswer(_vectors(data, cut), counted=True)
    if data and "score" in data[0]:
        return LineAnswer(", ".join(f"{one['score']:.4g}" for one in data if "score" in one))
    return None


def _told(text: str, cut: bool, reason: object) -> LineAnswer:
    found = _parsed(text, cut) if text.lstrip().startswith("{") else None
    fields = found if isinstance(found, dict) and found else None
    return LineAnswer(text, fields, finish_reason=reason if isinstance(reason, str) else None)


def _vectors(data: list[dict[str, Any]], cut: bool) -> str:
    first = data[0]["embedding"]
    # As base64 a number is four bytes.
    size = len(first) * 3 // 16 if isinstance(first, str) else len(first)
    numbers = f"{words.number(size)} numbers"
    if len(data) > 1:
        numbers = f"{len(data)} × {numbers}"
    return f"{numbers} or more" if cut else numbers
