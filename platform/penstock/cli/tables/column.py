"""Columns: what a table's cells are, and how one is written as text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec

_MOST_64: Final = 2**63 - 1


class ColumnKind(StrEnum):
    """What every cell of a column is, unless it is null."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    JSON = "json"
    """Lists, objects, or a mixture: JSON text where a format has no such thing."""


@dataclass(frozen=True)
class Column:
    """A column's name, and what is in it."""

    name: str
    kind: ColumnKind = ColumnKind.TEXT


def kind_of(value: Any) -> ColumnKind | None:
    """The kind of one JSON value; None for null, which is of every kind."""
    if value is None:
        return None
    if isinstance(value, bool):
        return ColumnKind.BOOLEAN
    if isinstance(value, int):
        return ColumnKind.INTEGER if abs(value) <= _MOST_64 else ColumnKind.JSON
    if isinstance(value, float):
        return ColumnKind.NUMBER
    return ColumnKind.TEXT if isinstance(value, str) else ColumnKind.JSON


def joined(one: ColumnKind | None, other: ColumnKind | None) -> ColumnKind | None:
    """The kind that holds both."""
    if one is None or other is None or one is other:
        return one or other
    return ColumnKind.NUMBER if {one, other} == {ColumnKind.INTEGER, ColumnKind.NUMBER} else ColumnKind.JSON


def as_text(value: Any) -> str:
    """A cell as a prompt and a CSV have it: nothing for null, true and false, ISO 8601 for dates, JSON for lists."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, dict | list | tuple):
        return as_json(value)
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return str(value)


def storable(text: str) -> str:
    """The text in UTF-8, which has no half surrogate pairs: they are written out."""
    return text.encode(errors="backslashreplace").decode()


def as_json(value: Any) -> str:
    """A cell as JSON; what JSON does not know is null (NaN) or text (dates, decimals)."""
    try:
        return msgspec.json.encode(value, enc_hook=as_text).decode()
    except (UnicodeEncodeError, OverflowError):  # half a surrogate pair, more than 64 bits
        return json.dumps(value, default=as_text)
