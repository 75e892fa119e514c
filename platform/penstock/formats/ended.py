"""Output lines, read again: how each line of an ended batch ended."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec

from penstock.formats.answers.finish import Finish, finish


class _Response(msgspec.Struct):
    status_code: int
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Error(msgspec.Struct):
    code: Any = None
    type: Any = None
    line: Any = None
    message: Any = None


class _Line(msgspec.Struct):
    id: str
    custom_id: str | None
    response: _Response | None = None
    error: _Error | None = None


class _Refusal(msgspec.Struct):
    error: _Error | None = None


_read = msgspec.json.Decoder(_Line).decode
_read_refusal = msgspec.json.Decoder(_Refusal).decode


@dataclass(frozen=True, slots=True)
class EndedLine:
    """One line's end. `status` is the engine's, None if it said nothing."""

    id: str
    """The output line's own; says its batch and its number (domain/ids.py)."""
    custom_id: str | None
    """Null of a skipped line only, if it has none that is valid."""
    line: bytes
    """The output line, without its line end."""
    status: int | None
    code: str | None
    """Why it has no response."""
    body: bytes
    skipped: int | None = None
    """The line of the input, if validation refused it: it was never asked."""
    message: str | None = None
    """Of `code`: the words beside it."""

    @property
    def failed(self) -> bool:
        """Whether it belongs to the error file."""
        return self.status is None or not 200 <= self.status < 300

    @property
    def codes(self) -> frozenset[str]:
        """Every name of its error: ours, or code and type in the engine's refusal."""
        if not self.failed:
            return frozenset()
        found = [self.code]
        try:
            error = _read_refusal(self.body).error
        except (msgspec.DecodeError, RecursionError):
            error = None
        if error is not None:
            found += [error.code, error.type]
        return frozenset(str(name) for name in found if name is not None)

    @property
    def finish(self) -> Finish:
        """How its answer ended."""
        return finish(self.body)


def read(line: bytes) -> EndedLine:
    """Read an output line; raise ValueError if it is none."""
    try:
        found = _read(line)
    except msgspec.DecodeError:  # what Python's JSON wrote: see `output`
        value = json.loads(line)
        found = msgspec.convert(value | {"response": None}, _Line)
        if value["response"] is not None:
            body = json.dumps(value["response"]["body"]).encode()
            found.response = _Response(value["response"]["status_code"], msgspec.Raw(body))
    response, error = found.response, found.error
    return EndedLine(
        id=found.id,
        custom_id=found.custom_id,
        line=line,
        status=None if response is None else response.status_code,
        code=None if error is None or error.code is None else str(error.code),
        body=b"null" if response is None else bytes(response.body),
        skipped=None if error is None else error.line,
        message=None if error is None or error.message is None else str(error.message),
    )
