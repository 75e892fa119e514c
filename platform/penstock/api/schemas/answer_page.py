"""Answer page: how a client asks for the answers of a batch that runs, and what it is told beside them."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Query
from pydantic import BeforeValidator, Field, WithJsonSchema

from penstock.api.http.errors import ErrorEnvelope

MOST_LINES: Final = 10_000


def digits(given: str | int) -> int:
    """A query parameter (or its default) in digits, without what Python would read as a number beside them."""
    digits = str(given).removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 18):
        raise ValueError("it must be an integer")
    return int(given)


# Bounds are said apart: those that stand behind a validator come out as no JSON Schema.
Cursor = Annotated[
    int,
    Field(ge=0),
    BeforeValidator(digits),
    WithJsonSchema({"type": "integer", "minimum": 0}),
    Query(description="How many lines you have had: the `x-last-line` of the answer before. 0 is the beginning."),
]
LineLimit = Annotated[
    int,
    Field(ge=1, le=MOST_LINES),
    BeforeValidator(digits),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MOST_LINES}),
    Query(description="So many lines at most."),
]

ANSWER_PAGE: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Lines as in the output and error file, in the order in which they were recorded; or none.",
        "content": {"application/jsonl": {"schema": {"type": "string"}}},
        "headers": {
            "x-incomplete": {
                "required": True,
                "description": "`true` while more lines come after these, now or later; `false` once you have all.",
                "schema": {"type": "string", "enum": ["true", "false"]},
            },
            "x-last-line": {
                "required": True,
                "description": "What to send as `after` to get what comes next, once you have read these to their end.",
                "schema": {"type": "integer", "minimum": 0},
            },
        },
    },
    410: {
        "model": ErrorEnvelope,
        "description": "`results_in_files`: it ended a while ago; read `output_file_id` and `error_file_id`.",
    },
}
