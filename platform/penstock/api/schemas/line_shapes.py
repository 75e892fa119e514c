"""Line shapes: a batch's lines and the groups of its errors on the wire, and how a client asks for them."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import Query
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from penstock.api.schemas.answer_page import digits
from penstock.service.results.line_page import MOST_TEXT_BYTES, Errors, LinePage, ShownLine, Text

MOST_LINES: Final = 1_000
MOST_WITH_TEXT: Final = 100

LineAfter = Annotated[
    str,
    Query(
        description="The `last_id` or `next_after` of the page before, or any line's number.",
        pattern=r"^(line_)?[0-9]{1,9}$",
    ),
]
LineLimit = Annotated[
    int,
    Field(ge=1, le=MOST_LINES),
    BeforeValidator(digits),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MOST_LINES}),
    Query(description=f"So many lines at most; with `include` at most {MOST_WITH_TEXT}."),
]
StatusCode = Annotated[
    int | None,
    Field(ge=100, le=599),
    BeforeValidator(lambda given: None if given is None else digits(given)),
    WithJsonSchema({"type": "integer", "minimum": 100, "maximum": 599}),
    Query(description="Only failed lines that the engine refused with this."),
]
Code = Annotated[
    str | None, Query(description="Only failed lines with this code, as in the groups of errors.", max_length=100)
]
CustomId = Annotated[str | None, Query(description="Only the line with exactly this custom_id.", max_length=512)]
Include = Annotated[
    str | None,
    Query(
        description="`request`, `response` or `request,response`: the line as it was asked, and the body of what came "
        f"back, each as JSON text, cut after {MOST_TEXT_BYTES:,} bytes.",
        pattern=r"^(request|response)(,(request|response))?$",
    ),
]


class LineTokens(BaseModel):
    """What the engine counted for an answer; zeros if it said nothing, and of a line without an answer."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int


class LineText(BaseModel):
    """JSON as it was written, or its beginning."""

    text: str
    cut: bool = Field(description="Whether more of it is left out.")


class BatchLineShape(BaseModel):
    """One line of a batch or job, and what came of it by now."""

    id: str = Field(description="`line_` and its number.")
    object: Literal["batch.line"] = "batch.line"
    line: int = Field(description="Its number in the input file, from 1; empty lines count.")
    custom_id: str | None = Field(description="Null of a skipped line that has none, and of an open one if unknown.")
    state: Literal["answered", "failed", "open"]
    status_code: int | None = Field(description="The engine's; null if it said nothing.")
    code: str | None = Field(description="Of a failed line: the error's code, or its type if the code says nothing.")
    message: str | None = Field(description="Of a failed line, at most 300 characters.")
    usage: LineTokens
    finish_reason: str | None = Field(description="Of an answered line: why the engine stopped, in its words.")
    request: LineText | None = Field(description="With `include=request`: null if the input file is gone.")
    response: LineText | None = Field(description="With `include=response`: null of a line without any.")


class LineList(BaseModel):
    """Lines in the order of the input."""

    object: Literal["list"] = "list"
    data: list[BatchLineShape]
    first_id: str | None
    last_id: str | None
    has_more: bool
    next_after: str | None = Field(
        description="What to send as `after` for the next page; null on the last. A page that had to read 16 MiB ends "
        "early, and may be empty: go on all the same."
    )
    batch_id: str
    parent_batch_id: str | None = Field(
        description="Of a retry: whose lines these repeat. The numbers are those of its own input."
    )


class ErrorGroupShape(BaseModel):
    """Lines that failed alike."""

    id: str = Field(description="`<status_code>:<code>`, with `-` for no status.")
    object: Literal["batch.error_group"] = "batch.error_group"
    status_code: int | None = Field(description="The engine's; null if it said nothing.")
    code: str = Field(description="`other`: all lines of further codes, if there are more than 64 groups.")
    count: int
    message: str = Field(description="The first line's, at most 300 characters.")
    first_line: int


class ErrorGroups(BaseModel):
    """How the lines of a batch failed by now, the largest groups first."""

    object: Literal["list"] = "list"
    data: list[ErrorGroupShape]
    first_id: str | None
    last_id: str | None
    has_more: Literal[False] = False
    failed: int = Field(description="All failed lines.")
    counted: int = Field(description="Of these, in `data`: fewer if an older release recorded or ended some of them.")
    batch_id: str
    parent_batch_id: str | None = Field(description="Of a retry, whose own lines these are: what it repeats.")


def number_of(after: str) -> int:
    """The line of a cursor."""
    return int(after.removeprefix("line_"))


def _text(one: Text | None) -> LineText | None:
    return None if one is None else LineText(text=one.text, cut=one.cut)


def _line(one: ShownLine) -> BatchLineShape:
    return BatchLineShape(
        id=f"line_{one.number}",
        line=one.number,
        custom_id=one.custom_id,
        state=one.state.value,
        status_code=one.status,
        code=one.failure.code if one.failure else None,
        message=one.failure.message if one.failure else None,
        usage=LineTokens(
            input_tokens=one.usage.input_tokens,
            cached_tokens=one.usage.cached_tokens,
            output_tokens=one.usage.output_tokens,
            reasoning_tokens=one.usage.reasoning_tokens,
        ),
        finish_reason=one.finish_reason,
        request=_text(one.request),
        response=_text(one.response),
    )


def lines(page: LinePage) -> LineList:
    """A page's shape."""
    data = [_line(one) for one in page.lines]
    return LineList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=page.next_after is not None,
        next_after=None if page.next_after is None else f"line_{page.next_after}",
        batch_id=page.batch.id,
        parent_batch_id=page.batch.parent,
    )


def groups(errors: Errors) -> ErrorGroups:
    """The shape of all groups."""
    data = [
        ErrorGroupShape(
            id=one.group_id,
            status_code=one.status or None,
            code=one.code,
            count=one.lines,
            message=one.message,
            first_line=one.first_line,
        )
        for one in errors.groups
    ]
    return ErrorGroups(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        failed=errors.failed,
        counted=sum(one.count for one in data),
        batch_id=errors.batch.id,
        parent_batch_id=errors.batch.parent,
    )
