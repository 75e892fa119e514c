"""Output lines: what is recorded of one line's end, and what the engine's usage counted for it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from penstock.domain.accounts.tokens import Usage
from penstock.domain.ids import line_id
from penstock.domain.reuse import ReuseSource
from penstock.domain.work.batch import LineError
from penstock.formats.answers.finish import Finish, finish
from penstock.formats.answers.written_answer import read_mended

_BAD_GATEWAY: Final = 502
_MOST_TOKENS: Final = 1_000_000_000
NO_USAGE: Final = Usage()


@dataclass(frozen=True, slots=True)
class Record:
    """One line's end: the output line, whether it belongs to the error file, its tokens, and if it is empty."""

    number: int
    line: bytes
    failed: bool
    usage: Usage = NO_USAGE
    empty: bool = False
    """Answered, but max_tokens ran out before anything was said."""
    reused: ReuseSource | None = None
    """Where the answer was already; None: it was asked for."""


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Answer(msgspec.Struct):
    usage: _Usage | None = None


_read_answer = msgspec.json.Decoder(_Answer).decode
_encode = msgspec.json.Encoder().encode


def answered(
    batch: str,
    number: int,
    custom_id: str,
    status: int,
    request_id: str | None,
    body: bytes,
    *,
    reused: ReuseSource | None = None,
) -> Record:
    """Record what the engine answered over HTTP, a refusal included; 2xx goes to the output file.

    A 2xx that is no JSON object is no answer, whoever sent it: its line has failed, with a 502. If the answer was there
    already, the line says `cached`, and its tokens cost no engine anything.
    """
    body, usage, is_object = _one_line(body)
    if not is_object and 200 <= status < 300:
        status = _BAD_GATEWAY
    failed = not 200 <= status < 300
    said = (status, _encode(request_id or ""), b',"cached":true' if reused else b"", body)
    response = b'{"status_code":%d,"request_id":%b%b,"body":%b}' % said
    line = _line(batch, number, custom_id, response, b"null")
    if failed:
        return Record(number, line, True, reused=reused)
    empty = finish(body) is Finish.EMPTY
    return Record(number, line, False, _without_work(usage, reused) if reused else usage, empty, reused)


def ended(batch: str, number: int, custom_id: str, reason: tuple[str, str]) -> Record:
    """Record an end that is not HTTP: cancelled, expired, timed out, crashed."""
    return Record(number, unanswered_line(batch, number, custom_id, reason), True)


def unanswered_line(batch: str, number: int, custom_id: str, reason: tuple[str, str]) -> bytes:
    """The output line of a line that has no answer."""
    error = _encode({"code": reason[0], "message": reason[1]})
    return _line(batch, number, custom_id, b"null", error)


def skipped_line(batch: str, custom_id: str | None, why: LineError) -> bytes:
    """The output line of a line that validation refused: its error says where it stands, too."""
    assert why.line is not None, "it is a line's error"
    error = _encode({"code": why.code, "message": why.message, "param": why.param, "line": why.line})
    return _line(batch, why.line, custom_id, b"null", error)


def _line(batch: str, number: int, custom_id: str | None, response: bytes, error: bytes) -> bytes:
    return b'{"id":"%b","custom_id":%b,"response":%b,"error":%b}' % (
        line_id(batch, number).encode(),
        _encode(custom_id),
        response,
        error,
    )


def _one_line(body: bytes) -> tuple[bytes, Usage, bool]:
    """The body as JSON without line breaks, its usage, and whether it is an object; else it is quoted in an error."""
    try:
        body.decode()
        if b"\n" in body or b"\r" in body:
            body = msgspec.json.format(body, indent=-1)
        return body, _usage(_read_answer(body)), True
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _one_lenient_line(body)


def _one_lenient_line(body: bytes) -> tuple[bytes, Usage, bool]:
    """The same for what msgspec refuses or stops reading early, with Python's own JSON, which checks all of it.

    Half a surrogate pair is such a thing, which models do answer, and so are a usage of another shape and `502 Bad …`.
    """
    try:
        values = json.loads(body, parse_constant=_refuse_constant)
        line = json.dumps(values, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError):
        values, line = None, b""
    if not isinstance(values, dict):
        text = body[:2_000].decode("utf-8", "replace")
        return _encode({"error": {"message": text, "type": "server_error", "code": "not_json"}}), Usage(), False
    try:
        return line, _usage(msgspec.convert(values, _Answer)), True
    except msgspec.ValidationError:
        return line, Usage(), True


class _Event(_Answer):
    response: _Answer | None = None


_read_event = msgspec.json.Decoder(_Event).decode


def usage_of(answer: bytes, *, reused: bool = False) -> Usage:
    """The usage of a whole answer, or of the events at a stream's end; nothing if it says none.

    `reused`: the answer was in the shared cache. Halves of surrogate pairs in its texts do no harm.
    """
    for line in reversed(answer.split(b"\ndata: ")):
        if b'"usage"' not in line:
            continue
        event = read_mended(_read_event, line.removeprefix(b"data: ").partition(b"\nevent: ")[0])
        if event is None:
            continue
        found = event if event.usage is not None else event.response
        if found is not None and found.usage is not None:
            return _without_work(_usage(found), ReuseSource.SHARED) if reused else _usage(found)
    return Usage()


def _without_work(usage: Usage, source: ReuseSource) -> Usage:
    """The tokens of an answer that was there already."""
    spared = {"cached_tokens": usage.input_tokens, "reused_output_tokens": usage.output_tokens}
    if source is ReuseSource.EQUAL:
        return dataclasses.replace(usage, **spared, equal_input_tokens=usage.input_tokens)
    spared |= {"shared_input_tokens": usage.input_tokens, "shared_output_tokens": usage.output_tokens}
    return dataclasses.replace(usage, **spared)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _usage(answer: _Answer) -> Usage:
    usage = answer.usage
    if usage is None:
        return Usage()
    before = usage.prompt_tokens_details or usage.input_tokens_details or _Details()
    after = usage.completion_tokens_details or usage.output_tokens_details or _Details()
    return Usage(
        _count(usage.prompt_tokens or usage.input_tokens),
        _count(before.cached_tokens),
        _count(usage.completion_tokens or usage.output_tokens),
        _count(after.reasoning_tokens),
    )


def _count(said: int | None) -> int:
    """Tokens as an engine says them: one elsewhere may say what no answer has, and sums of it fit in no column."""
    return min(max(said or 0, 0), _MOST_TOKENS)


def parse(line: bytes) -> dict[str, Any]:
    """An output line as plain values, for answers that are shown inline."""
    return msgspec.json.decode(line, type=dict[str, Any])
